"""The sections of the panel, one file each."""
