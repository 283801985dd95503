"""ipsecctl enable and disable: our own file always, systemd where it is at work and only for the default instance."""

from pathlib import Path

import pytest

from ipc import kept
from ipsecctl import at_boot
from ipsecctl.record import Record


@pytest.fixture
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A default instance that is not this machine's, on a machine that systemd has started."""
    monkeypatch.setattr(kept, "DEFAULT_DIRECTORY", str(tmp_path / "lib"))
    monkeypatch.setattr(kept, "DEFAULT_INSTANCE", str(tmp_path / "run"))
    monkeypatch.setattr(at_boot, "SYSTEMD_AT_WORK", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    return tmp_path


def systemctl(default: Path, code: int) -> Path:
    """A systemctl that writes down its arguments."""
    program = default / "bin/systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {default}/asked\necho no such unit\nexit {code}\n')
    program.chmod(0o755)
    return default / "asked"


@pytest.mark.parametrize(("enabled", "verb"), [(True, "enable"), (False, "disable")])
def test_t27_systemd_is_told_and_remembers_for_itself(default: Path, enabled: bool, verb: str) -> None:
    asked = systemctl(default, 0)
    assert at_boot.change(kept.DEFAULT_INSTANCE, Record(), enabled=enabled) == 0
    assert asked.read_text() == f"--no-ask-password {verb} ipsecd.service ipsecd-secure.service\n"
    assert kept.is_enabled(kept.DEFAULT_INSTANCE) is enabled


def test_what_systemd_refuses_is_said_and_our_own_file_is_written(
    default: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    systemctl(default, 1)
    assert at_boot.change(kept.DEFAULT_INSTANCE, Record(), enabled=True) == 1
    told = capsys.readouterr().out
    assert "systemctl enable ipsecd.service ipsecd-secure.service: no such unit" in told
    assert kept.is_enabled(kept.DEFAULT_INSTANCE)


def test_another_instance_is_no_business_of_systemds(default: Path, tmp_path: Path) -> None:
    asked = systemctl(default, 0)
    assert at_boot.change(str(tmp_path / "other"), Record(), enabled=True) == 0
    assert not asked.exists()
    assert kept.is_enabled(str(tmp_path / "other"))


def test_without_systemd_our_own_file_is_enough(default: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = systemctl(default, 1)
    monkeypatch.setattr(at_boot, "SYSTEMD_AT_WORK", str(default / "nothing"))
    assert at_boot.change(kept.DEFAULT_INSTANCE, Record(), enabled=False) == 0
    assert not asked.exists()
