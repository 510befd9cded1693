"""Finding the labels in an image."""
