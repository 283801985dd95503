"""An OpenIKED to talk to: Debian's package, a daemon for each namespace, over the kernel's ESP."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.debian import LIBRARIES, fetched
from tests.lab.namespaces import LabError, Namespace, run
from tests.lab.pki import key_pem, some_key
from tests.lab.waiting import wait_until

PACKAGES = ("openiked", "libevent-2.1-7")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_USER, _UID = "_iked", 60790

# Its files and its user are where it was built to look for them, in /etc: the overlay is read-only and its alone.
_LAUNCH = 'mount --make-rprivate / && mount -t overlay openiked -o ro,lowerdir="$1/etc:/etc" /etc && shift && exec "$@"'


class OpenIked:
    """A running iked in `namespace`, from `with` to its end. Unavailable where its packages can't be fetched.

    `settings` is iked.conf; `files` are keys and certificates, by path below /etc/iked.
    """

    def __init__(self, namespace: Namespace, settings: str, files: Mapping[str, bytes] | None = None) -> None:
        self._namespace = namespace
        self._settings = settings
        self._files = files or {}
        self._root = fetched("openiked", PACKAGES)
        self._state = Path(tempfile.mkdtemp(prefix="ipsecd-openiked-"))
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

    def control(self, *arguments: str, check: bool = True) -> str:
        """Runs ikectl against this daemon."""
        return run(self._program("ikectl", "-s", str(self._socket), *arguments), check=check, timeout_s=20.0)

    def show_sas(self) -> str:
        """All its SAs and flows."""
        return self.control("show", "sa", check=False)

    def configure(self, settings: str) -> None:
        """Another iked.conf, in force at once."""
        (self._state / "etc/iked.conf").write_text(settings)
        self.control("reload")

    def log(self) -> str:
        """What it logged so far."""
        path = self._state / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """Ends the daemon, which deletes its SAs on both sides, and removes its files; harmless if that is done."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._daemon.wait(_STOP_TIMEOUT_S)
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None
        shutil.rmtree(self._state, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self._state / "iked.sock"

    def _program(self, name: str, *arguments: str) -> list[str]:
        return ["env", f"LD_LIBRARY_PATH={self._root}/{LIBRARIES}", f"{self._root}/usr/sbin/{name}", *arguments]

    def _start(self) -> None:
        etc = self._state / "etc"
        empty = self._state / "empty"
        empty.mkdir()
        self._state.chmod(0o711)
        folders = ("ca", "certs", "crls", "ocsp", "private", "pubkeys/fqdn", "pubkeys/ipv4", "pubkeys/ipv6")
        for folder in (*folders, "pubkeys/ufqdn"):
            (etc / "iked" / folder).mkdir(parents=True)
        # It does not start without a key of its own, used or not.
        for path, content in {"private/local.key": key_pem(some_key("p256")), **self._files}.items():
            (etc / "iked" / path).write_bytes(content)
        (etc / "iked.conf").write_text(self._settings)
        (etc / "iked.conf").chmod(0o600)
        user = f"{_USER}:x:{_UID}:{_UID}::{empty}:/usr/sbin/nologin\n"
        (etc / "passwd").write_text(Path("/etc/passwd").read_text() + user)
        (etc / "group").write_text(Path("/etc/group").read_text() + f"{_USER}:x:{_UID}:\n")
        daemon = self._program("iked", "-dvv", "-f", "/etc/iked.conf", "-s", str(self._socket))
        with (self._state / "log").open("wb") as output:
            self._daemon = subprocess.Popen(
                self._namespace.command("sh", "-c", _LAUNCH, "sh", str(self._state), *daemon),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until("iked answers", self._answers, timeout_s=_START_TIMEOUT_S)

    def _answers(self) -> bool:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            raise LabError(f"iked ended with {self._daemon.returncode}: {self.log()[-4000:]}")
        return self._socket.exists() and "config_getpolicy" in self.log()
