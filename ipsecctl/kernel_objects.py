"""Which objects of ours are in the kernel, counted by a program of the kernel agent's package that changes nothing."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ipc

COUNTER = "kernel_agent.tagged"
SECURE_MODE = "secure mode"
"""What it says beside the counts where the kernel drops what no policy allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What was counted, in words ("3 policies"), and why it was not, empty if it was."""

    lines: tuple[str, ...]
    error: str
    secure: bool = False
    """Whether secure mode is on."""


class Counter:
    """The program at work, beside whatever else is looked at meanwhile; it must be done by the monotonic `deadline`."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        # -S: it needs our packages and the standard library only, and the rest takes its time to be found.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-S", "-m", COUNTER],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(ipc.__path__[0]).parent)},
        )

    def result(self) -> Counted:
        """The objects in this network namespace, a line for each kind that is there."""
        try:
            out, err = self._process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return Counted(lines=(), error="it took too long")
        if self._process.returncode:
            return Counted(lines=(), error=err.strip()[-200:] or f"exit code {self._process.returncode}")
        lines = out.splitlines()
        return Counted(
            lines=tuple(line for line in lines if line != SECURE_MODE), error="", secure=SECURE_MODE in lines
        )
