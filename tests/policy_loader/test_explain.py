"""Which rule decides about a packet (RFC 4301 section 4.4.1); tests/kernel_agent asks the kernel."""

import dataclasses
from ipaddress import ip_address
from typing import Any

import pytest

from ipc.types import Action, Direction, PortRange
from policy_loader import policy_file
from policy_loader.compile import Policy
from policy_loader.explain import Decision, Packet, Reason, decide
from policy_loader.rule_ids import RuleIds

HEAD = """
[setup]
interfaces = ["eth0"]
unmatched = "{unmatched}"
[peers.branch]
address = "198.51.100.7"
local_address = "192.0.2.1"
auth = "psk"
psk = "correct horse battery staple"
"""
SSH = 'name = "ssh"\naction = "bypass"\nprotocol = "tcp"\nlocal_port = 22'
LAN = 'name = "lan"\naction = "protect"\nlocal = ["10.1.0.0/16"]\nremote = ["10.2.0.0/16"]\npeer = "branch"'
PING = 'name = "ping"\naction = "bypass"\nprotocol = "icmp"'
DROP = 'name = "drop"\naction = "discard"\nlocal = ["10.0.0.0/8"]'


def policy(*rules: str, unmatched: str = "bypass") -> Policy:
    text = HEAD.format(unmatched=unmatched) + "".join(f"[[rules]]\n{rule}\n" for rule in rules)
    return policy_file.read("x", text.encode(), 0o600, 0).compile({}, RuleIds()).policy


def packet(source: str = "10.1.0.5", destination: str = "10.2.0.9", **fields: Any) -> Packet:
    made = {"direction": Direction.OUT, "protocol": 17, "source_port": 1000, "destination_port": 2000, **fields}
    return Packet(source=ip_address(source), destination=ip_address(destination), **made)


def names(decision: Decision) -> tuple[list[str], list[str], list[str]]:
    """Of the first step: the rule that decides, those it shadows, and those that may decide before it."""
    step = decision.steps[0]
    deciding = [step.rule.name] if step.rule else []
    return deciding, [one.name for one in step.shadowed], [one.name for one in step.possible]


def test_the_first_match_decides_and_the_later_ones_are_shadowed() -> None:
    decision = decide(policy(SSH, LAN, DROP), packet())
    assert (decision.action, decision.certain, names(decision)) == (Action.PROTECT, True, (["lan"], ["drop"], []))
    decision = decide(policy(DROP, LAN), packet())
    assert (decision.action, names(decision)) == (Action.DISCARD, (["drop"], ["lan"], []))


def test_what_comes_in_has_the_remote_end_as_its_source() -> None:
    came = packet("10.2.0.9", "10.1.0.5", direction=Direction.IN)
    assert decide(policy(LAN), came).action is Action.PROTECT
    turned = packet("10.1.0.5", "10.2.0.9", direction=Direction.IN)
    assert decide(policy(LAN), turned).deciding.reason is Reason.UNMATCHED
    to_ssh = packet("203.0.113.1", "192.0.2.1", direction=Direction.IN, protocol=6, destination_port=22)
    assert names(decide(policy(SSH, unmatched="discard"), to_ssh))[0] == ["ssh"]


@pytest.mark.parametrize(("unmatched", "action"), [("bypass", Action.BYPASS), ("discard", Action.DISCARD)])
def test_what_no_rule_matches_goes_as_the_setup_says(unmatched: str, action: Action) -> None:
    decision = decide(policy(LAN, unmatched=unmatched), packet("192.0.2.1", "192.0.2.2"))
    assert (decision.action, decision.steps[0].reason, decision.steps[0].rule) == (action, Reason.UNMATCHED, None)


def test_what_is_not_said_of_a_packet_is_not_guessed() -> None:
    unsaid = decide(policy(SSH, LAN), packet(protocol=6, source_port=None))
    assert (unsaid.certain, names(unsaid)) == (False, (["lan"], [], ["ssh"]))
    assert decide(policy(SSH, LAN), packet(protocol=6)).certain
    assert names(decide(policy(SSH, LAN), packet(protocol=None, source_port=None)))[2] == ["ssh"]
    assert decide(policy(LAN, SSH), packet(protocol=None)).certain


@pytest.mark.parametrize(
    ("action", "fields", "fits"),
    [
        ("discard", {"interface": "eth0"}, True),
        ("discard", {"interface": "eth1"}, False),
        ("discard", {}, None),
        ("discard", {"direction": Direction.IN, "interface": "eth0"}, True),
        ("bypass", {"direction": Direction.FORWARD, "interface": "eth0", "leaves_by": "eth1"}, True),
        ("bypass", {"direction": Direction.FORWARD, "interface": "eth1", "leaves_by": "eth0"}, False),
        ("discard", {"v6": True, "interface": "eth1"}, True),
        ("bypass", {"v6": True, "interface": "eth0"}, False),
    ],
)
def test_a_rule_with_an_interface_is_for_packets_there(action: str, fields: dict[str, Any], fits: bool | None) -> None:
    ends = ("fd01::5", "fd02::9") if fields.pop("v6", False) else ("10.1.0.5", "10.2.0.9")
    decision = decide(policy(f'name = "there"\naction = "{action}"\ninterface = "eth0"'), packet(*ends, **fields))
    deciding, _, possible = names(decision)
    assert (deciding, possible) == {True: (["there"], []), False: ([], []), None: ([], ["there"])}[fits]


def test_icmp_is_matched_by_type_and_code() -> None:
    both = policy(PING, LAN)
    echo = dataclasses.replace(both.kernel_rules[0], local_port=PortRange(first=8 << 8, last=8 << 8 | 255))
    both = dataclasses.replace(both, kernel_rules=(echo, both.kernel_rules[1]))
    for kind, expected in ((8, "ping"), (9, "lan")):
        asked = packet(protocol=1, source_port=None, destination_port=None, icmp_type=kind, icmp_code=3)
        assert names(decide(both, asked))[0] == [expected]


def test_the_user_space_data_path_leads_a_packet_to_the_tunnel_before_type_and_interface_are_asked() -> None:
    pings = LAN.replace('"lan"', '"pings"') + '\nprotocol = "icmp"'
    rules = policy(f'{pings}\nicmp_type = ["echo-request", "echo-reply"]', PING)
    icmp = {"protocol": 1, "source_port": None, "destination_port": None}
    timestamp, echo = packet(icmp_type=13, **icmp), packet(icmp_type=8, **icmp)
    assert decide(rules, timestamp).action is Action.BYPASS
    for asked in (timestamp, packet(icmp_type=13, direction=Direction.FORWARD, **icmp)):
        led = decide(rules, asked, userspace=True).deciding
        assert (led.action, led.reason, led.direction) == (Action.DISCARD, Reason.LED_ASIDE, Direction.OUT)
        assert led.rule is not None and led.rule.name == "pings"
    assert decide(rules, echo, userspace=True).action is Action.PROTECT
    assert decide(rules, packet("10.9.0.5", icmp_type=13, **icmp), userspace=True).action is Action.BYPASS
    comes = packet("10.2.0.9", "10.1.0.5", direction=Direction.IN, icmp_type=13, **icmp)
    assert decide(rules, comes, userspace=True).action is Action.BYPASS
    before = policy(PING, f'{pings}\nicmp_type = "echo-request"')
    assert decide(before, timestamp, userspace=True).action is Action.BYPASS
    there = policy(f'{LAN}\ninterface = "eth0"')
    elsewhere = packet(interface="eth1")
    assert decide(there, elsewhere).deciding.reason is Reason.UNMATCHED
    assert decide(there, elsewhere, userspace=True).action is Action.PROTECT


def test_a_forwarded_packet_is_looked_up_as_it_comes_and_as_it_leaves() -> None:
    leaving = decide(policy(LAN), packet(direction=Direction.FORWARD))
    assert [(step.direction, step.action) for step in leaving.steps] == [
        (Direction.FORWARD, Action.BYPASS),
        (Direction.OUT, Action.PROTECT),
    ]
    assert leaving.action is Action.PROTECT
    dropped = decide(policy(LAN, unmatched="discard"), packet("10.9.9.9", "10.8.8.8", direction=Direction.FORWARD))
    assert [step.action for step in dropped.steps] == [Action.BYPASS, Action.DISCARD], "as it leaves"
    returned = decide(policy(LAN, unmatched="discard"), packet("10.2.0.9", "10.1.0.5", direction=Direction.FORWARD))
    assert [step.action for step in returned.steps] == [Action.PROTECT, Action.BYPASS], "it came by the tunnel"


def test_loopback_neighbour_discovery_and_ike_itself_pass_before_all_rules() -> None:
    closed = policy('name = "all"\naction = "discard"')
    for asked, reason in (
        (packet("127.0.0.1", "127.0.0.1"), Reason.LOOPBACK),
        (packet("fe80::1", "ff02::1", protocol=58, icmp_type=135), Reason.NEIGHBOUR_DISCOVERY),
        (packet("192.0.2.1", "198.51.100.7", source_port=500), Reason.OUR_OWN),
        (packet("198.51.100.7", "192.0.2.1", direction=Direction.IN, destination_port=4500), Reason.OUR_OWN),
        (packet("192.0.2.1", "198.51.100.7", protocol=50), Reason.OUR_OWN),
    ):
        decision = decide(closed, asked)
        assert (decision.action, decision.deciding.reason) == (Action.BYPASS, reason)
    forwarded = packet("192.0.2.1", "198.51.100.7", protocol=50, direction=Direction.FORWARD)
    assert decide(closed, forwarded).action is Action.DISCARD
    assert decide(closed, packet("fe80::1", "ff02::1", protocol=58, icmp_type=128)).action is Action.DISCARD


def test_a_rule_begins_on_the_line_of_its_header() -> None:
    text = HEAD.format(unmatched="bypass") + f"[[rules]]\n{SSH}\n\n[[rules]]\n{LAN}\n"
    file = policy_file.read("x", text.encode(), 0o600, 0)
    behind = [text.splitlines()[file.line_of(position)] for position in (0, 1)]
    assert behind == ['name = "ssh"', 'name = "lan"']
