"""The log of a role: what one round of its loop has to say is written at once.

A line for each event of each SA, written alone, costs its writer a system call and wakes the supervisor, which copies
it: in a storm of handshakes that was half of the supervisor's work. A warning, or worse, waits for nothing.
"""

import contextlib
import logging
import os
import time

WHOLE_BYTES = 4096
"""What is written to a pipe in pieces of at most so many bytes stays in one piece (PIPE_BUF, pipe(7))."""


class LineFormat(logging.Formatter):
    """The default format of times, made once for each second."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self._second = -1
        self._text = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """As the base class does it, where no other format is asked for."""
        second = int(record.created)
        if second != self._second:
            self._second, self._text = second, time.strftime(self.default_time_format, self.converter(second))
        return f"{self._text},{int(record.msecs):03d}"


class RoundLog(logging.Handler):
    """Writes lines to `descriptor` at `flush`; before `gather` was called, each by itself."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._gathers = False
        self._lines: list[bytes] = []

    def gather(self) -> None:
        """From now on somebody flushes at the end of each round."""
        self._gathers = True

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one line."""
        self._lines.append(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        if not self._gathers or record.levelno >= logging.WARNING:
            self.flush()

    def flush(self) -> None:
        """Writes what there is."""
        lines, self._lines = self._lines, []
        piece = b""
        for line in lines:
            if piece and len(piece) + len(line) > WHOLE_BYTES:
                self._write(piece)
                piece = b""
            piece += line
        if piece:
            self._write(piece)

    def _write(self, piece: bytes) -> None:
        # A pipe that nobody empties, or a full disk: there is nowhere to say so, and the role has work to do.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, piece)
