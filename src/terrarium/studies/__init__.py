"""What we ask: one module per question."""
