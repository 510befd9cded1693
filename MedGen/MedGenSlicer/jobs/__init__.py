"""Runs of the worker that add nodes to the scene."""
