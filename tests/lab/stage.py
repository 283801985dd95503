"""A real supervisor with stand-ins for its roles (tests/supervisor/stand_ins), in a network namespace of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from ipsecctl import lock_file
from tests.lab.namespaces import Namespace

ROOT = Path(__file__).resolve().parents[2]
RUN_WITHIN_S = 60


class Stage:
    """A namespace, a run directory and a policy file for one supervisor; `with` leaves nothing of them."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.base = Path(tempfile.mkdtemp(prefix="ipsecd-stage-"))
        self.base.chmod(0o711)
        self.directory = self.base / "run"
        self.spd = self.base / "ipsec.spd"
        self.spd.write_text("one two")
        self.spd.chmod(0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def environment(self, **more: str) -> dict[str, str]:
        """For programs of the checkout, stand-ins included."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/supervisor")]), **more}

    def run(self, module: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Runs a module in the namespace to its end."""
        return subprocess.run(
            self.namespace.command(sys.executable, "-P", "-m", module, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_WITHIN_S,
            check=False,
            env=self.environment(**environment),
        )

    def try_stand_ins(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Starts a daemon, which may fail."""
        arguments = ("-d", "--instance", str(self.directory), "-f", str(self.spd))
        return self.run("stand_ins.supervisor", *arguments, **environment)

    def start_stand_ins(self, **environment: str) -> str:
        """Starts a daemon; the lines it said. AssertionError with them if it did not start."""
        done = self.try_stand_ins(**environment)
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def supervisor(self) -> int:
        """The pid in the lock; 0 if there is none."""
        try:
            return int(json.loads((self.directory / "ipsecd.lock").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return 0

    def remove(self) -> None:
        """Ends the supervisor, and its children with it, and removes all files."""
        if lock_file.look(str(self.directory)).held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.supervisor, signal.SIGKILL)
        shutil.rmtree(self.base, ignore_errors=True)
