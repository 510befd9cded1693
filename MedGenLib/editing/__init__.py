"""Editing of an image by editing its mask: `session` holds the public classes, the other modules are its parts."""
