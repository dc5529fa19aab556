"""The process in which libav reads files, so that one that crashes it or hangs it costs one row.

It reads requests as lines of JSON from its standard input, and answers each with a line of JSON on
its standard output (not by pickle: whoever takes over this process by a file must not get any
further). `worker_pool` is the other side.

    {"function": "read_duration", "arguments": {"path": "/a.mp4", "local_files_only": true}}
    {"result": 12.5}        or {"error": why}, {"libav_error": what libav says},
                            {"machine_error": why}, {"lacks_memory": true}

Blank lines between say that packets are still being read. Of a function that sends frames, a line
such as {"frame": 0, "bytes": 999} stands before each: the number of its view, and its size. The
process ends when its input does.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from videofeatures.errors import MachineError, VideoError, reading_error

ALIVE_SECONDS = 0.5
"""How often it says that it is still reading packets: a large file on a slow disk is no hang."""


def main() -> None:
    """Answer requests until there is no more input."""
    # Ctrl-C, or a scheduler's word, goes to all processes of a job; it is the job's to end this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Only answers go to the other side, whatever a library prints.
    answers = os.dup(1)
    os.dup2(2, 1)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()

    _log_to_stderr()
    alive = _Alive(answers)
    while True:
        request = json.loads(requests.get())
        answer = _answer(FUNCTIONS[request["function"]], request["arguments"], alive)
        _write(answers, json.dumps(answer, default=_encode).encode() + b"\n")


def _log_to_stderr() -> None:
    """Have libav say its errors itself: PyAV keeps them, and of a crash they may be all that there
    is."""
    import av

    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)


def _read_requests(requests: queue.SimpleQueue[bytes]) -> None:
    """Pass requests on, and end this process with its input, whatever libav is doing then.

    The input ends when the other process does, even by SIGKILL. libav runs without Python's lock.
    """
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _write(pipe: int, data: bytes | memoryview) -> None:
    try:
        while data:
            data = data[os.write(pipe, data) :]
    except BrokenPipeError:  # nobody listens any more
        os._exit(0)


class _Alive:
    """Says, no more often than is needed, that packets are still being read; sends frames."""

    def __init__(self, pipe: int):
        self._pipe = pipe
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + ALIVE_SECONDS
            _write(self._pipe, b"\n")

    def send(self, number: int, pixels: memoryview) -> None:
        """Send a frame of the view of this number."""
        header = json.dumps({"frame": number, "bytes": pixels.nbytes}).encode() + b"\n"
        _write(self._pipe, header)
        _write(self._pipe, pixels)


def _answer(
    function: Callable[..., object], arguments: dict[str, Any], alive: _Alive
) -> dict[str, Any]:
    import av

    try:
        return {"result": function(alive, **arguments)}
    except MemoryError:
        return {"lacks_memory": True}
    except av.FFmpegError as error:
        if error.errno == errno.ENOMEM:
            return {"lacks_memory": True}
        return {"libav_error": error.strerror or str(error)}
    except VideoError as error:
        return _answer_error(error)
    except OSError as error:
        return _answer_error(reading_error(error))


def _answer_error(error: VideoError) -> dict[str, Any]:
    return {"machine_error" if isinstance(error, MachineError) else "error": error.reason}


def _encode(value: object) -> object:
    """Return as JSON has it what JSON does not know."""
    if isinstance(value, Fraction):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


# Each imports what it needs.


def _probe_video(alive: Callable[[], None], **arguments: Any) -> object:
    from videofeatures.decoding.probe import probe_video

    return probe_video(**arguments, on_packet=alive)


def _read_duration(alive: Callable[[], None], **arguments: Any) -> object:
    from videofeatures.decoding.probe import read_duration

    return read_duration(**arguments)


def _find_landing(alive: Callable[[], None], **arguments: Any) -> object:
    from videofeatures.decoding.seeking import find_landing

    return find_landing(**arguments, on_packet=alive)


def _look_at_packets(alive: Callable[[], None], **arguments: Any) -> object:
    from videofeatures.decoding.packets import look_at_packets

    return look_at_packets(**arguments, on_packet=alive)


def _decode_at_once(alive: _Alive, **arguments: Any) -> object:
    from videofeatures.decoding.at_once import decode_at_once

    try:
        return decode_at_once(**arguments, send=alive.send, on_packet=alive)
    finally:
        _log_to_stderr()


FUNCTIONS: dict[str, Callable[..., object]] = {
    "probe_video": _probe_video,
    "read_duration": _read_duration,
    "find_landing": _find_landing,
    "look_at_packets": _look_at_packets,
    "decode_at_once": _decode_at_once,
}

if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # Python's own end fails while a thread reads
