"""The worker: a process that runs the jobs, so that the one that asks does not have to wait.

`python -m MedGenLib.worker` is the process, `MedGenLib.worker.client.Worker` its client for plain
Python; Slicer has a client of its own on the same `Connection`. They speak JSON-RPC 2.0, one
message a line, over stdin and stdout (`messages.py`); images travel as files (`transfer.py`).

Nothing here imports torch or NumPy when it is opened.
"""
