"""MRML nodes in: images and masks of the scene as volumes and label maps."""
