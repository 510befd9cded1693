"""What a run reports about its input and its output."""
