"""Pipelines from an input to a volume, one for each family of models."""
