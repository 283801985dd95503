"""The command line of ipsecd."""

import os

import pytest

from supervisor import __main__ as ipsecd
from supervisor.detach import Starter
from supervisor.settings import Settings


def settings_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    seen: list[Settings] = []

    def run(settings: Settings, _starter: Starter) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(ipsecd, "run", run)
    assert ipsecd.main(arguments) == 0
    return seen[0]


def test_the_defaults_are_those_of_the_manual(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of([], monkeypatch) == Settings(instance="/run/ipsecd", spd_path="/etc/ipsec.spd", log_level="INFO")


def test_an_instance_has_one_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(["--instance", "/run//a/../b/"], monkeypatch).instance == "/run/b"


@pytest.mark.parametrize(("level", "name"), [("0", "WARNING"), ("1", "INFO"), ("2", "DEBUG")])
def test_message_levels(level: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(["-m", level, "-f", "/x"], monkeypatch).log_level == name


def test_a_wrong_option_is_a_usage_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        ipsecd.main(["-m", "3"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ipsecd")


def test_without_root_permission_is_denied(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ipsecd.main([]) == 4
    assert "permission denied (must be superuser)" in capsys.readouterr().err
