"""What is right: worlds make examples and hold the exact oracle (no torch)."""
