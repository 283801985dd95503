"""Leaving secure mode: the operator is asked on a terminal, and who it was is recorded."""

import io
from argparse import Namespace
from pathlib import Path

import pytest

from ipsecctl import asker, secure_mode
from ipsecctl.commands import insecure
from ipsecctl.record import Record


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The instances whose secure mode was left; the kernel is not asked and not changed."""
    instances: list[str] = []
    monkeypatch.setattr(secure_mode, "is_on", lambda: True)
    monkeypatch.setattr(secure_mode, "leave", instances.append)
    return instances


@pytest.mark.parametrize(
    ("answer", "yes", "code"),
    [("y\n", False, 0), ("yes\n", False, 0), ("\n", False, 1), ("", False, 1), ("n\n", True, 0)],
)
def test_t38_it_asks_on_a_terminal(
    left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, yes: bool, code: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert insecure.run(Namespace(instance=str(tmp_path), yes=yes)) == code
    assert left == ([] if code else [str(tmp_path)])


def test_it_records_who_it_was(left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[str] = []
    monkeypatch.setattr(Record, "detail", lambda _self, line: recorded.append(line))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setattr(asker, "_terminal", lambda: "/dev/pts/3")
    assert insecure.run(Namespace(instance=str(tmp_path), yes=False)) == 0
    assert recorded[0].startswith(f"end of secure mode of {tmp_path}, asked for by ")
    assert "uid " in recorded[0]
    assert ", on /dev/pts/3, by sudo as alice, pid " in recorded[0]
