"""JSON-RPC 2.0 messages, one per line, and their errors."""

from __future__ import annotations

import json
import traceback
from typing import Any

from MedGenLib.errors import (
    Cancelled,
    DiskFullError,
    InputError,
    LicenseError,
    MedGenError,
    MemoryPlanError,
    PackageError,
    WorkerError,
)

PROTOCOL = 1
"""Version of the protocol."""
LONGEST_LINE = 64 * 2**20
"""Maximum bytes of a line; longer ones do not belong to this protocol."""

PARSE_ERROR, INVALID_REQUEST, UNKNOWN_METHOD, INVALID_PARAMS, INTERNAL = (-32700, -32600, -32601, -32602, -32603)
FAULT = -32010
"""Any unexpected error."""

_CODES: dict[int, type[MedGenError]] = {
    -32001: InputError,
    -32002: PackageError,
    -32003: LicenseError,
    -32004: MemoryPlanError,
    -32005: Cancelled,
    -32006: DiskFullError,
}
_KINDS = {kind: code for code, kind in _CODES.items()}


class ProtocolError(WorkerError):
    """A message that does not follow the protocol; `code` is JSON-RPC's own."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def encode(message: dict[str, Any]) -> bytes:
    """A message as one line of UTF-8. NaN and infinity, which JSON lacks, raise ValueError."""
    text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate, as in a file name that is not UTF-8, cannot be encoded.
    return text.encode("utf-8", errors="replace") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Parse the message in one line. Raises ProtocolError if it is not a JSON object."""
    try:
        message = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _detailed(ProtocolError(PARSE_ERROR, "A message is not JSON."), _start(line)) from error
    if not isinstance(message, dict):
        raise _detailed(ProtocolError(INVALID_REQUEST, "A message is not a JSON object."), _start(line))
    return message


def request(number: int | None, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A request, or a notification if the number is None."""
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    return message if number is None else {**message, "id": number}


def answer(number: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def refusal(number: Any, exception: BaseException) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": error_of(exception)}


def error_of(exception: BaseException) -> dict[str, Any]:
    """The error object of an exception: code, one sentence for the user, detail for the log."""
    if isinstance(exception, ProtocolError):
        return _error(exception.code, exception)
    for kind in type(exception).__mro__:
        if kind in _KINDS:
            return _error(_KINDS[kind], exception)
    if isinstance(exception, MedGenError):
        return _error(FAULT, exception)
    name = type(exception).__name__
    sentence = f"An unexpected error stopped the run ({name}: {_one_line(str(exception))})."
    fault = _detailed(WorkerError(sentence), "".join(traceback.format_exception(exception)))
    return _error(FAULT, fault)


def exception_of(error: Any) -> MedGenError:
    """The exception of an error object; its `detail` is the text for the log."""
    if not isinstance(error, dict):
        error = {}
    kind = _CODES.get(error.get("code"), WorkerError)
    data = error.get("data")
    detail = data.get("detail") if isinstance(data, dict) else None
    sentence = error.get("message") or "The worker rejected the request without a reason."
    return _detailed(kind(str(sentence)), str(detail or ""))


def _error(code: int, exception: MedGenError) -> dict[str, Any]:
    kind = _CODES.get(code, WorkerError).__name__
    message = _one_line(str(exception))
    return {"code": code, "message": message, "data": {"kind": kind, "detail": exception.detail}}


def _detailed(exception: MedGenError, detail: str) -> MedGenError:
    exception.detail = detail
    return exception


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _start(line: bytes) -> str:
    return f"It began with {line[:200]!r}."
