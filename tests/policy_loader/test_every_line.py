"""A policy of a hundred lines, broken at each of them in turn: it is refused, and that line is named."""

import pytest

from policy_loader import policy_file
from policy_loader.errors import PolicyError
from policy_loader.rule_ids import RuleIds

HEAD = """\
[setup]
interfaces = ["eth0", "eth1"]
unmatched = "discard"
ip_forward = "on"
[proposals.strong]
ike = ["aes256gcm16-prfsha384-x25519"]
esp = ["aes256gcm16-esn"]
[addresses]
offices = ["10.1.0.0/16", "10.2.0.5-10.2.0.9"]
[defaults.rules]
idle = "1h"
"""
PEER = """\
[peers.branch{number}]
address = "198.51.100.{number}"
local_id = "hq.example.net"
remote_id = "branch{number}.example.net"
auth = "psk"
psk = "correct horse battery staple {number}"
proposals = "strong"
liveness = "30s"
"""
RULE = """\
[[rules]]
name = "net{number}"
action = "protect"
local = ["offices"]
remote = ["10.{number}.0.0/16"]
protocol = "tcp"
remote_port = "80-443"
peer = "branch{number}"
rekey_bytes = "1GB"
close = "start"
"""
NUMBERS = range(101, 106)
TEXT = HEAD + "".join(PEER.format(number=n) for n in NUMBERS) + "".join(RULE.format(number=n) for n in NUMBERS)
LINES = TEXT.splitlines()


def complaints(lines: list[str]) -> tuple[str, ...]:
    """What is said of a file of these lines; empty if it is good."""
    try:
        policy_file.read("x", "\n".join(lines).encode(), 0o600, 0).compile({}, RuleIds())
    except PolicyError as error:
        return error.complaints
    return ()


def lines_named(lines: list[str]) -> set[int]:
    return {int(one.split(":")[1]) for one in complaints(lines)}


def test_the_file_is_good_and_has_a_hundred_lines() -> None:
    assert len(LINES) >= 100
    assert complaints(LINES) == ()


@pytest.mark.parametrize("number", range(len(LINES)), ids=lambda number: f"line{number + 1}")
def test_a_line_that_is_broken_is_named(number: int) -> None:
    line = LINES[number]
    key, equals, _ = line.partition(" = ")
    without_end = [*LINES[:number], line.rstrip('"]'), *LINES[number + 1 :]]
    assert number + 1 in lines_named(without_end) | {at - 1 for at in lines_named(without_end)}
    wrong = f"{key} = [[false]]" if equals else f"[nothing.{number}]" if not line.startswith("[[") else "[[nothings]]"
    assert number + 1 in lines_named([*LINES[:number], wrong, *LINES[number + 1 :]])
    if equals:
        misspelt = f"{key}_x{equals}0"
        assert number + 1 in lines_named([*LINES[:number], misspelt, *LINES[number + 1 :]]) or key == "offices"
    stray = lines_named([*LINES[: number + 1], "what is this", *LINES[number + 1 :]])
    assert stray == {number + 2}


def test_all_broken_lines_are_named_at_once() -> None:
    broken = [f"{line.partition(' = ')[0]} = [[false]]" if " = " in line else line for line in LINES]
    wanted = {at + 1 for at, line in enumerate(LINES) if " = " in line}
    assert lines_named(broken) == wanted
