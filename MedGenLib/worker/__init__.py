"""The worker: a process that runs jobs, so that the client does not block.

`python -m MedGenLib.worker` is the process, `MedGenLib.worker.client.Worker` its client for plain Python; Slicer has
its own client on the same `Connection`. They speak JSON-RPC 2.0, one message per line, over stdin and stdout
(`messages.py`); images travel as files (`transfer.py`).

Importing this package imports neither torch nor NumPy.
"""
