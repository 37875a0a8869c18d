"""What we may conclude: rows, intervals, checks, hypotheses and verdicts."""
