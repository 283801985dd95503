"""Debian's tshark, unpacked and not installed: what Wireshark makes of a capture, with tables of keys."""

import shutil
import subprocess
from pathlib import Path

from tests.lab.debian import LIBRARIES, Unavailable, fetched
from tests.lab.namespaces import LabError

PACKAGES = (
    *("tshark", "libwireshark16", "libwireshark-data", "libwiretap13", "libwsutil14"),
    *("libc-ares2", "liblua5.2-0", "libsmi2ldbl", "libsnappy1v5"),
)
"""What a Debian 12 without anything of Wireshark lacks; the rest of its libraries are looked for on this machine."""
_TIMEOUT_S = 120.0
_ESN = """More fields than required. Discarding ',"64-bit","0"'"""
"""What one before 4.2 says of an SA with extended sequence numbers; it decrypts all the same."""


class Tshark:
    """A tshark with a home of its own. Unavailable where it can't be fetched or does not run."""

    def __init__(self, home: Path) -> None:
        self._root = fetched("tshark", PACKAGES)
        self._home = home
        self.configuration = home / ".config/wireshark"
        """Its tables of keys stand here."""
        self.configuration.mkdir(parents=True)
        version = self._run("--version")
        if version.returncode:
            raise Unavailable(f"tshark does not run here: {version.stderr.strip()[-300:]}")

    def read(self, capture: Path, *arguments: str) -> str:
        """What it says of `capture`; LabError where it can't read that, or its tables."""
        done = self._run("-r", str(capture), "-o", "esp.enable_encryption_decode:TRUE", *arguments)
        complaints = [
            line for line in done.stderr.splitlines() if ("UAT" in line or "rror" in line) and _ESN not in line
        ]
        if done.returncode or complaints:
            raise LabError(f"tshark: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self._root / "usr/bin/tshark"), *arguments],
            env={
                "HOME": str(self._home),
                "PATH": "/usr/bin:/bin",
                "LC_ALL": "C.UTF-8",
                "LD_LIBRARY_PATH": str(self._root / LIBRARIES),
                "WIRESHARK_DATA_DIR": str(self._root / "usr/share/wireshark"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def give_tables(self, directory: Path) -> None:
        """Has it use the tables in `directory`."""
        for path in directory.iterdir():
            shutil.copy(path, self.configuration)
