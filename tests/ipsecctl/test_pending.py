"""What waits to be confirmed: it is undone when nobody does, once, and not when somebody does."""

from pathlib import Path

import pytest

from ipc import kept
from ipsecctl import pending
from ipsecctl.errors import CommandError


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run."""
    commands: list[list[str]] = []
    monkeypatch.setattr(pending.subprocess, "run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(pending.subprocess, "Popen", lambda *_, **__: None)
    return commands


def test_it_is_undone_when_the_time_is_over(tmp_path: Path, undone: list[list[str]]) -> None:
    instance = str(tmp_path)
    pending.begin(instance, 0.0, "stop", "insecure --yes")
    pending.wait(instance, 0.0, 0, ["stop", "insecure --yes"])
    assert [
        command[-len(words) :] for command, words in zip(undone, (["stop"], ["insecure", "--yes"]), strict=True)
    ] == [
        ["stop"],
        ["insecure", "--yes"],
    ]
    assert list(tmp_path.iterdir()) == []
    assert not pending.end(instance)


def test_what_was_confirmed_stays(tmp_path: Path, undone: list[list[str]]) -> None:
    instance = str(tmp_path)
    pending.begin(instance, 3600.0, "stop")
    assert Path(kept.unconfirmed(instance)).exists()
    assert pending.end(instance)
    pending.wait(instance, 3600.0, 0, ["stop"])
    assert undone == []


def test_two_do_not_wait_at_once(tmp_path: Path, undone: list[list[str]]) -> None:
    pending.begin(str(tmp_path), 3600.0, "stop")
    with pytest.raises(CommandError, match="waits for `ipsecctl confirm` already"):
        pending.begin(str(tmp_path), 3600.0, "stop")
