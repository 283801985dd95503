"""The command line of ipsecctl."""

import os

import pytest

from ipsecctl import __main__ as ipsecctl
from ipsecctl.arguments import COMMANDS, DEFAULT_INSTANCE, parse


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_o2_every_command_has_two_spellings_and_an_example_in_its_help(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    name, example = command.name, command.example  # type: ignore[attr-defined]
    rest = example.split()[2:]
    assert parse([name, *rest]).command == name
    assert parse([f"--{name}", *rest]).command == name
    for alias in command.aliases:  # type: ignore[attr-defined]
        assert parse([alias, *rest]).command == parse([f"--{alias}", *rest]).command == name
    with pytest.raises(SystemExit) as end:
        parse([name, "--help"])
    assert end.value.code == 0
    assert example in " ".join(capsys.readouterr().out.split())


def test_the_instance_may_stand_on_either_side_of_the_command() -> None:
    assert parse(["status"]).instance == DEFAULT_INSTANCE
    assert parse(["--instance", "/run/a", "status"]).instance == "/run/a"
    assert parse(["status", "--instance", "/run/a"]).instance == "/run/a"


@pytest.mark.parametrize("arguments", [["frobnicate"], [], ["start", "--json"], ["status", "extra"]])
def test_o2_anything_else_is_a_usage_on_stderr_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        ipsecctl.main(arguments)
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("usage: ipsecctl")
    assert captured.out == ""


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "soon"])
@pytest.mark.parametrize("command", [["reload"], ["policy", "rollback", "1"], ["secure"], ["start"], ["stop"]])
def test_a_time_to_confirm_that_is_none_is_refused(
    command: list[str], seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*command, "--confirm", seconds])
    assert ended.value.code == 2
    assert f'"{seconds}" is no number of seconds above 0' in capsys.readouterr().err


@pytest.mark.parametrize("example", [command.example for command in COMMANDS if command.needs_root])
def test_o2_without_root_permission_is_denied(
    example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ipsecctl.main(example.split()[1:]) == 4
    assert capsys.readouterr().err == "permission denied (must be superuser)\n"


def test_the_version_is_told_to_everybody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ipsecctl.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("ipsecd ")
