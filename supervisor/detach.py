"""`ipsecd -d`: the parent waits until the start has succeeded or failed, says which, and leaves the daemon behind.

They speak through a pipe: lines for people, and a last line with the exit code.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ipc.roles import STARTING_NAME
from supervisor.log_file import LogFile

log = logging.getLogger(__name__)

EXIT_LINE = "exit "


class Starter:
    """The way back to whoever started ipsecd: its terminal, or the parent that waits at a pipe."""

    def __init__(self, pipe: int | None) -> None:
        self._pipe = pipe
        self._terminal: int | None = None
        """A copy of stdout as it was, if the log went elsewhere without a parent at a pipe."""

    def announce(self, line: str) -> None:
        """Says one line; without a terminal to say it on, the log has it too."""
        if self._pipe is None and self._terminal is None:
            print(line, flush=True)
        else:
            log.info("%s", line)
            self._write(line)

    def finished(self, code: int) -> None:
        """The start is over: the parent exits with `code`. Harmless when called again."""
        if self._pipe is not None:
            self._write(f"{EXIT_LINE}{code}")
            os.close(self._pipe)
            self._pipe = None

    def use_log(self, open_log: Callable[[], int], *, also_in_foreground: bool = False) -> LogFile | None:
        """Turns stdin, stdout and stderr away from the terminal, if there is a parent to speak through.

        `also_in_foreground`: stdout and stderr in any case. OSError if the log can't be opened.
        """
        if self._pipe is None:
            if not also_in_foreground:
                return None
            self._terminal = os.dup(1)
            return LogFile(open_log)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        return LogFile(open_log)

    def _write(self, line: str) -> None:
        # Whoever waited at the other end may have been interrupted; the daemon goes on.
        with contextlib.suppress(BrokenPipeError):
            descriptor = self._pipe if self._pipe is not None else self._terminal
            if descriptor is not None:
                os.write(descriptor, (line + "\n").encode())


def name_process(name: str) -> None:
    """Gives this process the name that ps(1) shows, and by which a start is told from the daemon it leaves behind."""
    Path("/proc/self/comm").write_text(name)


def run_detached(run: Callable[[Starter], int]) -> int:
    """Runs `run` in a process of its own, away from the terminal; the first process returns the start's exit code."""
    name_process(STARTING_NAME)
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(read_end)
        os.setsid()
        starter = Starter(write_end)
        code = 1
        try:
            code = run(starter)
        except Exception as error:
            log.exception("ipsecd failed")
            starter.announce(f"ipsecd: failed: {error!r}")
        finally:
            starter.finished(code)
            sys.stderr.flush()
            # Not sys.exit: what the first process had open and registered is not ours to end.
            os._exit(code)
    os.close(write_end)
    return relay(read_end)


def relay(read_end: int) -> int:
    """Prints the lines that come out of the pipe; the exit code, 1 if the daemon died without one."""
    with os.fdopen(read_end, encoding="utf-8", errors="replace") as pipe:
        for line in pipe:
            if line.startswith(EXIT_LINE):
                return int(line.removeprefix(EXIT_LINE))
            print(line, end="", flush=True)
    print("ipsecd: it died while it started; its log says more", file=sys.stderr)
    return 1
