"""The worker process in Slicer, and what it needs to run."""
