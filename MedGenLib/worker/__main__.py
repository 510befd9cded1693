"""`python -m MedGenLib.worker`: the worker process, or with MEDGEN_ENGINE a relay to that of another computer.

This file must be readable by any Python 3, so that an old one answers with a sentence instead of a syntax error.
"""

import os
import sys

MINIMUM = (3, 11)


def main():
    if sys.version_info[:2] < MINIMUM:
        refuse()
        return 1
    from MedGenLib.worker.server import main as serve

    address = os.environ.get("MEDGEN_ENGINE")
    if address:
        from MedGenLib.worker.remote.relay import relay_methods

        return serve(relay_methods(address))
    return serve()


def refuse():
    """Answer the first request with an error of the protocol."""
    import json

    sentence = (
        "The worker was started with Python {}.{} ({}), but MedGen needs Python {}.{} or newer; "
        "choose another one.".format(*sys.version_info[:2], sys.executable, *MINIMUM)
    )
    sys.stderr.write(sentence + "\n")
    try:
        number = json.loads(sys.stdin.readline()).get("id")
    except (ValueError, AttributeError):
        number = None
    error = {"code": -32010, "message": sentence, "data": {"kind": "WorkerError", "detail": ""}}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": number, "error": error}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
