"""`ipsecctl check`: -p and the warnings, for people and as JSON (T14, T15, T45, T46)."""

import json
from pathlib import Path
from typing import Any

import pytest

from ipsecctl import exit_codes
from ipsecctl.__main__ import main
from tests.lab.instance import IPSECCTL, NetworkState
from tests.lab.namespaces import LabError, Namespace

GOOD = """
[setup]
interfaces = ["lo"]
unmatched = "bypass"
[peers.branch]
address = "198.51.100.7"
local_id = "hq.example.net"
auth = "psk"
psk = "correct horse battery staple"
[[rules]]
name = "lan"
action = "protect"
local = ["10.1.0.0/16"]
remote = ["10.2.0.0/16"]
peer = "branch"
"""


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files belong to whoever runs the tests; root's they are by their facts."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("policy_loader.sources.file.complaints", lambda mode, uid: ())


def written(directory: Path, text: str) -> str:
    path = directory / "ipsec.spd"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_t14_a_good_file_is_said_to_be_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, GOOD)
    assert main(["check", path]) == exit_codes.OK
    assert capsys.readouterr().out == f"{path} is good: 1 rule\n"


def test_t15_all_errors_are_said_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, GOOD.replace("branch]", "brunch]").replace("bypass", "bypas"))
    assert main(["check", path]) == exit_codes.STRANGE
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(path)] == [
        f'{path}:4:1: setup.unmatched: "bypas" is not known; did you mean "bypass"?',
        f'{path}:15:1: rules.peer: there is no [peers.branch]; did you mean "brunch"?',
        f"{path} is not good: 2 errors",
    ]
    assert '    peer = "branch"' in lines


def test_warnings_come_after_and_do_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, GOOD.replace("correct horse battery staple", "short").replace('"lo"', '"none0"'))
    assert main(["check", "--json", path]) == exit_codes.OK
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["file"], told["good"], told["errors"]) == (path, True, [])
    short, missing = told["warnings"]
    assert (short["file"], short["line"], short["column"], short["key"]) == (path, 9, 1, "peers.branch.psk")
    assert "can be guessed" in short["text"]
    assert "none0" in missing["text"]


def test_t45_t46_the_templates_beside_the_file_are_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ipsec.templates").write_text('[setup]\nunmatched = "bypass"\n[proposals.strng]\n')
    bare = GOOD.replace('unmatched = "bypass"\n', "")
    assert main(["check", written(tmp_path, bare)]) == exit_codes.OK
    assert (
        main(["check", written(tmp_path, bare.replace("psk =", 'proposals = "strong"\npsk ='))]) == exit_codes.STRANGE
    )
    assert 'did you mean "strng"?' in capsys.readouterr().out


def test_a_file_that_is_not_there_is_not_configured(tmp_path: Path) -> None:
    assert main(["check", str(tmp_path / "none")]) == exit_codes.NOT_CONFIGURED


@pytest.mark.root
def test_t15_what_only_the_kernel_can_refuse_is_tried_aside(tmp_path: Path) -> None:
    with Namespace("check") as namespace:
        path = written(tmp_path, GOOD)
        command = (str(IPSECCTL), "check", "--kernel", path)
        before = NetworkState.of(namespace)
        assert "is good" in namespace.run(*command)
        assert NetworkState.of(namespace).since(before) == []
        for way, source, destination in (("out", "10.1.0.0/16", "10.2.0.0/16"), ("in", "10.2.0.0/16", "10.1.0.0/16")):
            namespace.ip("xfrm", "policy", "add", "src", source, "dst", destination, "dir", way, "priority", "1")
        with pytest.raises(LabError, match=r"exit 1: a policy that is not ours is in the way: \w+ 10\.\d\.0\.0/16 to"):
            namespace.run(*command)
