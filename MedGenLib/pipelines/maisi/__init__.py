"""NVIDIA NV-Generate-CTMR ("MAISI"): labels, grids and networks, with the published weights."""
