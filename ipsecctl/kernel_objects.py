"""Which objects of ours are in the kernel, counted by a program of the kernel agent's package that changes nothing."""

import subprocess
from dataclasses import dataclass

from ipsecctl.modules import environment, module_command

COUNTER = "kernel_agent.tagged"
COUNT_WITHIN_S = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What was counted, in words ("3 policies"), and why it was not, empty if it was."""

    lines: tuple[str, ...]
    error: str


def count() -> Counted:
    """The objects in this network namespace, a line for each kind that is there."""
    try:
        done = subprocess.run(
            module_command(COUNTER),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=environment(),
            timeout=COUNT_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Counted(lines=(), error=f"not within {COUNT_WITHIN_S:g} s")
    if done.returncode:
        return Counted(lines=(), error=done.stderr.strip()[-200:] or f"exit code {done.returncode}")
    return Counted(lines=tuple(done.stdout.split("\n")[:-1]), error="")
