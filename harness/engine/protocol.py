"""How the engine and a worker talk: requests and replies are JSON behind a four-byte length, one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

# bound here, for a plugin may replace what json and its classes have
HEADER, ENCODE, DECODE = struct.Struct("!I"), json.JSONEncoder().encode, json.JSONDecoder().decode
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
MOST_MESSAGE, MOST_PLACES, MOST_FRAMES = 500, 240, 3  # characters of parts of a reason, and frames in it
MOST_TRACEBACK = 100_000  # characters of it in the log; a message may be as long as its author likes


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message."""
    stream.write(_packed(message))
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; None when the other side is gone.

    Raises:
        ValueError: the message is too long, nested too deeply, or broken.
    """
    header = stream.read(4)
    if len(header) < 4:
        return None
    (length,) = HEADER.unpack(header)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    body = stream.read(length)
    if len(body) < length:
        return None
    try:
        return DECODE(body.decode())
    except RecursionError as error:
        raise ValueError("a message that is nested too deeply") from error


def _packed(message: Any) -> bytes:
    body = ENCODE(message).encode()
    return HEADER.pack(len(body)) + body


def serve(
    handlers: Callable[[], Any], requests: IO[bytes], replies: IO[bytes], restore: Callable[[], None] = lambda: None
) -> None:
    """Answer requests until the engine is gone. An exception becomes a reply; the worker lives on.

    Args:
        handlers: makes the object whose methods answer; called for the first request, and again if it raises.
        requests, replies: where messages come from and go to.
        restore: called before every reply; see `ProcessState.restore`.
    """
    target, own = None, os.getpid()
    while (request := receive(requests)) is not None:
        try:
            target = target or handlers()
            reply = _packed({"result": getattr(target, request["do"])(**request["with"])})
        except BaseException as error:  # a plugin may raise anything, SystemExit included; it must become a row
            reply = _packed({"error": describe_failure(error)})
        if os.getpid() != own:
            os._exit(0)  # a plugin forked and let the child return; only one of us may answer
        restore()
        replies.write(reply)
        replies.flush()


def describe_failure(error: BaseException) -> dict[str, Any]:
    """What an exception means for the request, as `WorkerFailure` tells it; innermost first, where it was raised.

    Want of memory is told from the type: a MemoryError, or a name with OutOfMemory, as frameworks call theirs.
    """
    from harness.contract import MOST_REASON, DataError, HarnessError, Unsupported, printable

    print_traceback(error)
    kind = type(error)
    is_data = issubclass(kind, DataError)
    errno = error.errno if isinstance(error, OSError) and type(error.errno) is int else None
    if issubclass(kind, HarnessError):
        status = "unsupported" if issubclass(kind, Unsupported) else "failed"
        return {"status": status, "reason": printable(error, MOST_REASON), "is_data": is_data, "errno": errno}
    is_memory = issubclass(kind, MemoryError) or any("OutOfMemory" in base.__name__ for base in kind.__mro__)
    frames = deque(traceback.walk_tb(error.__traceback__), maxlen=MOST_FRAMES)
    places = [f"{Path(f.f_code.co_filename).name}:{line} in {f.f_code.co_name}" for f, line in reversed(frames)]
    reason = f"{printable(kind.__name__, MOST_PLACES)}: {printable(error, MOST_MESSAGE) or 'no message'}"
    reason += f" [{printable(' < '.join(places), MOST_PLACES)}]" if places else ""
    status = "out-of-memory" if is_memory else "failed"
    return {"status": status, "reason": reason, "is_data": is_data, "errno": errno}


def print_traceback(error: BaseException) -> None:
    with contextlib.suppress(BaseException):  # the log may have been closed, and the exception may be a strange one
        print("".join(traceback.format_exception(error))[:MOST_TRACEBACK], file=sys.stderr)
