"""`ipsecctl explain` without an instance; on a running one it is tried in tests/system/test_status.py."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.instance import IPSECCTL
from tests.lab.namespaces import Namespace

pytestmark = pytest.mark.root

SPD = """\
[setup]
interfaces = ["eth0"]
unmatched = "bypass"

[peers.branch]
address = "198.51.100.7"
local_id = "hq.example.net"
remote_id = "branch.example.net"
auth = "psk"
psk = "a key for tests only, 0c1d77"

[[rules]]
name = "ssh"
action = "bypass"
protocol = "tcp"
local_port = 22

[[rules]]
name = "branch-lan"
action = "protect"
local = ["10.1.0.0/16"]
remote = ["10.2.0.0/16"]
peer = "branch"

[[rules]]
name = "rest"
action = "discard"
local = ["10.0.0.0/8"]
"""
ENDS = ("--src", "10.1.0.5", "--dst", "10.2.0.9")


class Question:
    """Asked in a namespace where nothing runs."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.spd = directory / "ipsec.spd"
        self.spd.write_text(SPD)
        self.spd.chmod(0o600)
        self._command = (str(IPSECCTL), "--instance", str(directory / "run"), "explain")

    def ask(self, *options: str) -> "subprocess.CompletedProcess[str]":
        command = self.namespace.command(*self._command, *options, str(self.spd))
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def lines(self, *options: str) -> list[str]:
        done = self.ask(*options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()


@pytest.fixture
def question(tmp_path: Path) -> Iterator[Question]:
    with Namespace("explain") as namespace:
        yield Question(namespace, tmp_path)


def test_the_answer_names_the_rule_its_line_the_action_the_peer_and_what_is_shadowed(question: Question) -> None:
    assert question.lines(*ENDS, "--proto", "tcp", "--sport", "4000", "--dport", "443") == [
        "packet     out, 10.1.0.5 to 10.2.0.9, tcp port 4000 to 443",
        f"rule       branch-lan ({question.spd}:18)",
        "action     protect: it is encrypted, tunnel mode, peer branch (198.51.100.7)",
        "sa         unknown: no instance answers that could be asked",
        f"shadows    rest ({question.spd}:25), discard",
    ]


def test_what_was_not_said_is_named(question: Question) -> None:
    lines = question.lines(*ENDS, "--proto", "tcp", "--dport", "443")
    assert f"unless     ssh ({question.spd}:12), bypass" in lines
    answer: Any = json.loads(question.ask(*ENDS, "--json").stdout)
    assert (answer["action"], answer["certain"]) == ("protect", False)
    assert [rule["name"] for rule in answer["steps"][0]["unless"]] == ["ssh"]


def test_secure_mode_is_taken_into_account(question: Question) -> None:
    unmatched = ("--src", "192.0.2.1", "--dst", "192.0.2.2")
    assert "action     bypass: it passes in clear" in question.lines(*unmatched)
    question.namespace.run(sys.executable, "-m", "kernel_agent.secure", "on")
    lines = question.lines(*unmatched)
    assert "action     discard: it is dropped" in lines
    assert lines[-1] == "note: secure mode is on: what no rule matches is dropped"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--src", "10.1.0.5", "--dst", "fd02::9"), "of two address families"),
        (("--src", "ten", "--dst", "10.2.0.9"), '--src: "ten" is no IPv4 or IPv6 address'),
        ((*ENDS, "--dport", "443"), "need --proto tcp"),
        ((*ENDS, "--proto", "tcp", "--dport", "70000"), "no port from 0 to 65535"),
        ((*ENDS, "--proto", "tpc"), 'did you mean "tcp"?'),
        ((*ENDS, "--proto", "icmp", "--icmp-type", "300"), "write an ICMP type by name"),
        ((*ENDS, "--proto", "udp", "--icmp-type", "8"), "needs --proto icmp"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_with_why(
    question: Question, options: tuple[str, ...], complaint: str
) -> None:
    done = question.ask(*options)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr


def test_a_policy_file_that_is_not_good_is_complained_of(question: Question) -> None:
    question.spd.write_text(SPD.replace('"discard"', '"discart"'))
    done = question.ask(*ENDS)
    assert done.returncode == 1
    assert f"{question.spd}:27:" in done.stderr
