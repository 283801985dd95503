"""What the daemons of others have in common: Debian's packages, files of their own, a start and an end."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.debian import fetched
from tests.lab.namespaces import LabError, Namespace
from tests.lab.waiting import wait_until

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class Foreign(ABC):
    """A running daemon in `namespace`, from `with` to its end. Unavailable where its packages can't be fetched."""

    def __init__(self, namespace: Namespace, name: str, packages: Sequence[str]) -> None:
        self._namespace = namespace
        self._name = name
        self._root = fetched(name, packages)
        self._state = Path(tempfile.mkdtemp(prefix=f"ipsecd-{name}-"))
        self._log = self._state / "log"
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The running daemon's."""
        assert self._daemon is not None
        return self._daemon.pid

    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """Ends the daemon, which deletes its SAs on both sides, and removes its files; harmless if that is done."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._daemon.wait(STOP_TIMEOUT_S)
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None
        shutil.rmtree(self._state, ignore_errors=True)

    @abstractmethod
    def _start(self) -> None:
        """Writes its files, launches it and has it read them."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it can be told anything."""

    def _launch(self, *command: str) -> None:
        """Starts the daemon; returns when it answers. What it prints is kept."""
        output_file = self._state / "output"
        with output_file.open("wb") as output:
            self._daemon = subprocess.Popen(
                self._namespace.command(*command), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

        def answers() -> bool:
            assert self._daemon is not None
            if self._daemon.poll() is not None:
                said = output_file.read_text(errors="replace")[-4000:] + self.log()[-2000:]
                raise LabError(f"{self._name} ended with {self._daemon.returncode}: {said}")
            return self._answers()

        wait_until(f"{self._name} answers", answers, timeout_s=START_TIMEOUT_S)
