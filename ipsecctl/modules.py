"""Running other parts of ipsecd as programs of their own."""

import os
import subprocess
import sys
from pathlib import Path

import ipc
from ipc.patience import patient
from ipc.roles import module_command
from ipsecctl.errors import CommandError


class ModuleFailed(CommandError):
    """A program of ours did not do what it is for; the text is one line that says why."""


def run_module(module: str, *arguments: str, within_s: float) -> str:
    """What one of our modules prints when it is run; ModuleFailed if it fails, or takes longer than `within_s`."""
    what = " ".join((module, *arguments))
    done = run_to_end(module, *arguments, within_s=within_s)
    if done.returncode:
        raise failure(what, done)
    return done.stdout.decode(errors="replace")


def run_to_end(
    module: str, *arguments: str, within_s: float, given: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """How one of our modules ends that is `given` this to read; ModuleFailed if it takes longer than `within_s`."""
    what = " ".join((module, *arguments))
    bound_s = patient(within_s)
    try:
        return subprocess.run(
            module_command(module, *arguments),
            input=given,
            capture_output=True,
            cwd="/",
            env=environment(),
            timeout=bound_s,
            check=False,
        )
    except OSError as error:
        raise ModuleFailed(f"{what} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ModuleFailed(f"{what} did not finish within {bound_s:g} s") from error


def failure(what: str, done: "subprocess.CompletedProcess[bytes]") -> ModuleFailed:
    """Why `what` did not do what it is for: the last line that it complained in."""
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return ModuleFailed(last[0][-500:] if last else f"{what}: exit code {done.returncode}")


def environment() -> dict[str, str]:
    """Our own, with the place of our packages where they are not installed."""
    packages = str(Path(ipc.__path__[0]).parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if packages not in sys.path or packages in paths or packages.endswith("-packages"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([packages, *filter(None, paths)])}
