"""MedGen inside 3D Slicer: nodes, worker engine, runs, logic. The panel lives in `panel/`.

Nothing is imported here, so that opening the module costs nothing.
"""
