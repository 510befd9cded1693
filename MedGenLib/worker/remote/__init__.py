"""The worker of another computer: `medgen serve` there, and here a relay that clients start as their worker.

Both sides speak the worker's JSON-RPC over WebSocket, a message in each text frame. Files are announced by the
notifications "upload" and "file" and follow in binary frames; in messages their names replace paths.
"""
