"""The methods of the worker."""
