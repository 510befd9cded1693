"""NVIDIA NV-Generate-CTMR ("MAISI"): its labels, grids and networks, run with its own weights."""
