"""Live editing: the volume follows its segmentation."""
