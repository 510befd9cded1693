"""Input and output: image files, DICOM, provenance, and output files that appear together."""
