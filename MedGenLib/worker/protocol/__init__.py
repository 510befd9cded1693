"""Messages between a client and the worker process."""
