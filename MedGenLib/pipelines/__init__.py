"""From an input to a volume: one pipeline for each family of models."""
