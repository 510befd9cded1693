"""Files: reading and writing images, output files that appear together, provenance, DICOM."""
