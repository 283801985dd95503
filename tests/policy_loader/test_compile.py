"""What rules become: defaults, families, ranges (RFC 4301 section 4.4.1)."""

from ipaddress import ip_address

import pytest

from ipc.types import Action, DataPathKind, Identity, IdType, Mode, PortRange, StartAction, Unmatched
from policy_loader import policy_file
from policy_loader.compile import Policy, with_rules_of
from policy_loader.rule_ids import RuleIds

HEAD = """
[setup]
interfaces = ["eth0", "eth1"]
unmatched = "bypass"
[peers.branch]
address = "198.51.100.7"
local_address = "192.0.2.1"
auth = "psk"
psk = "correct horse battery staple"
[[rules]]
name = "one"
"""


def compiled(text: str) -> Policy:
    return policy_file.read("x", (HEAD + text).encode(), 0o600, 0).compile({}, RuleIds()).policy


def test_a_protect_rule_as_the_agent_and_as_the_worker_see_it() -> None:
    policy = compiled(
        'action = "protect"\nlocal = ["10.1.0.0/16", "2001:db8::/126"]\nremote = ["10.2.0.1", "::/0"]\n'
        'protocol = "tcp"\nremote_port = "80-90"\npeer = "branch"'
    )
    (kernel,), (negotiation,) = policy.kernel_rules, policy.negotiation_rules
    assert (kernel.action, kernel.mode, kernel.protocol, kernel.position) == (Action.PROTECT, Mode.TUNNEL, 6, 0)
    assert [str(one) for one in (*kernel.local, *kernel.remote)] == [
        "10.1.0.0/16",
        "2001:db8::/126",
        "10.2.0.1/32",
        "::/0",
    ]
    assert (kernel.local_port, kernel.remote_port) == (PortRange(), PortRange(first=80, last=90))
    assert (kernel.local_address, kernel.peer_address) == (ip_address("192.0.2.1"), ip_address("198.51.100.7"))
    assert kernel.esp_proposals == negotiation.esp_proposals
    assert len(kernel.esp_proposals) == 2
    assert [str(one) for one in (*negotiation.local, *negotiation.remote)] == [
        "10.1.0.0-10.1.255.255 proto 6",
        "2001:db8::-2001:db8::3 proto 6",
        "10.2.0.1 proto 6 port 80-90",
        "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff proto 6 port 80-90",
    ]
    assert (negotiation.rule_id, negotiation.position, negotiation.peer) == (kernel.rule_id, 0, "branch")
    assert (negotiation.start, negotiation.rekey_s, negotiation.life_s) == (StartAction.ON_DEMAND, 3600.0, 4500.0)


def test_one_rule_has_lists_of_protocols_and_ports() -> None:
    policy = compiled(
        'action = "protect"\nlocal = ["10.1.0.0/16"]\nremote = ["10.2.0.1"]\npeer = "branch"\n'
        'protocol = ["tcp", "udp"]\nlocal_port = [80, "8000-8100"]\n[[rules]]\nname = "pings"\naction = "bypass"\n'
        'protocol = ["icmp", "icmpv6"]\nicmp_type = ["echo-request", "packet-too-big"]'
    )
    web, pings = policy.kernel_rules
    assert [(one.protocol, str(one.local_port), str(one.remote_port)) for one in web.next_layers] == [
        (6, "80", "any"),
        (6, "8000-8100", "any"),
        (17, "80", "any"),
        (17, "8000-8100", "any"),
    ]
    # The types of each family are its own; both sides say them.
    echo, big, echo6 = (PortRange(first=kind << 8, last=kind << 8 | 255) for kind in (8, 2, 128))
    found = {(one.protocol, one.local_port, one.remote_port) for one in pings.next_layers}
    assert found == {(1, echo, echo), (58, echo6, echo6), (58, big, big)}
    (negotiation,) = policy.negotiation_rules
    assert [str(one) for one in negotiation.local] == [
        f"10.1.0.0-10.1.255.255 proto {protocol} port {ports}"
        for protocol in (6, 17)
        for ports in ("80-80", "8000-8100")
    ]
    assert [str(one) for one in negotiation.remote] == ["10.2.0.1 proto 6", "10.2.0.1 proto 17"]


def test_a_peer_whose_identities_are_not_given_is_its_addresses() -> None:
    (peer,) = compiled('action = "bypass"').peers
    assert peer.local_id == Identity(type=IdType.IPV4_ADDR, data=bytes((192, 0, 2, 1)))
    assert peer.remote_id == Identity(type=IdType.IPV4_ADDR, data=bytes((198, 51, 100, 7)))
    assert (peer.liveness_s, peer.rekey_s, peer.force_encapsulation) == (30.0, 14400.0, False)


def test_a_rule_that_does_not_protect_is_the_kernels_alone() -> None:
    policy = compiled('action = "discard"')
    (kernel,) = policy.kernel_rules
    assert [str(one) for one in kernel.local] == ["0.0.0.0/0", "::/0"]
    assert (kernel.peer_address, kernel.esp_proposals, policy.negotiation_rules) == (None, (), ())
    assert (policy.interfaces, policy.unmatched, policy.data_path) == (
        ("eth0", "eth1"),
        Unmatched.BYPASS,
        DataPathKind.AUTO,
    )


def test_what_no_rule_matches_is_discarded_by_a_last_rule() -> None:
    text = HEAD.replace("bypass", "discard") + 'action = "bypass"'
    policy = policy_file.read("x", text.encode(), 0o600, 0).compile({}, RuleIds()).policy
    first, last = policy.kernel_rules
    assert (last.action, last.position, last.protocol) == (Action.DISCARD, 1, 0)
    assert [str(one) for one in (*last.local, *last.remote)] == ["0.0.0.0/0", "::/0"] * 2
    assert first.rule_id != last.rule_id
    assert (policy.rules, len(compiled('action = "bypass"').kernel_rules)) == (1, 1)


def test_any_means_only_the_families_that_the_other_side_has() -> None:
    (kernel,) = compiled('action = "bypass"\nremote = ["2001:db8::/32"]').kernel_rules
    assert [str(one) for one in kernel.local] == ["::/0"]


def test_a_transport_rule_is_between_the_two_addresses() -> None:
    (kernel,) = compiled('action = "protect"\nmode = "transport"\npeer = "branch"').kernel_rules
    assert [str(one) for one in (*kernel.local, *kernel.remote)] == ["192.0.2.1/32", "198.51.100.7/32"]


@pytest.mark.parametrize(
    ("earlier", "later", "shadowed"),
    [
        ("", "", True),
        ("", 'local = ["10.0.0.0/8"]', True),
        ('local = ["10.0.0.0/8"]', "", False),
        ('local = ["10.0.0.0/8"]', 'local = ["10.1.0.0/16", "10.2.3.4"]', True),
        ('local = ["10.0.0.0/8"]', 'local = ["10.1.0.0/16", "11.2.3.4"]', False),
        ('local = ["10.0.0.0/8", "11.0.0.0/8"]', 'local = ["10.1.0.0/16", "11.2.3.4"]', True),
        ('protocol = "tcp"', 'protocol = "udp"', False),
        ('protocol = "tcp"', "", False),
        ('protocol = "tcp"\nlocal_port = "1-100"', 'protocol = "tcp"\nlocal_port = "5-100"', True),
        ('protocol = "tcp"\nlocal_port = "1-100"', 'protocol = "tcp"\nlocal_port = "5-101"', False),
        ('protocol = "tcp"\nremote_port = 80', 'protocol = "tcp"\nlocal_port = 80', False),
        ('protocol = ["tcp", "udp"]', 'protocol = "udp"', True),
        ('protocol = "udp"', 'protocol = ["tcp", "udp"]', False),
        (
            'protocol = "tcp"\nlocal_port = [7, "20-90"]',
            'protocol = "tcp"\nlocal_port = ["80-90", 7]\nremote_port = 9',
            True,
        ),
        ('protocol = "tcp"\nlocal_port = [7, "20-90"]', 'protocol = "tcp"\nlocal_port = [8, 7]', False),
        ('protocol = "icmp"\nicmp_type = [8, "3/4"]', 'protocol = "icmp"\nicmp_type = ["3/4", "8/1"]', True),
        ('protocol = "icmp"\nicmp_type = [8, "3/4"]', 'protocol = "icmp"\nicmp_type = 3', False),
        ('remote = ["::/0"]', 'remote = ["0.0.0.0/0"]', False),
        ('remote = ["2001:db8::/32"]', 'remote = ["2001:db8:1::/48"]', True),
        ('remote = ["2001:db8:1::/48"]', 'remote = ["2001:db8::/32"]', False),
        ('local = ["10.0.0.0/8"]\nremote = ["10.0.0.0/8"]', 'local = ["10.1.0.0/16"]\nremote = ["11.0.0.0/8"]', False),
    ],
)
def test_a_rule_that_can_never_match_is_told(earlier: str, later: str, shadowed: bool) -> None:
    text = f'{HEAD}action = "bypass"\n{earlier}\n[[rules]]\nname = "two"\naction = "discard"\n{later}'
    warnings = policy_file.read("x", text.encode(), 0o600, 0).compile({}, RuleIds()).warnings
    assert any('"two" can never match' in line for line in warnings) is shadowed


def test_rules_that_a_policy_has_again_are_the_same_objects() -> None:
    rule = """action = "protect"
        local = ["10.1.0.0/24"]
        remote = ["10.2.0.0/24"]
        peer = "branch"
        """
    other = rule.replace("10.2.", "10.3.")
    ids = RuleIds()

    def compiled_with(text: str) -> Policy:
        return policy_file.read("x", (HEAD + text).encode(), 0o600, 0).compile({}, ids).policy

    former = compiled_with(f'{rule}[[rules]]\nname = "two"\n{other}')
    again = compiled_with(f'{rule}[[rules]]\nname = "renamed"\n{other}')
    shared = with_rules_of(again, former)
    assert shared == again
    assert shared.kernel_rules[0] is former.kernel_rules[0]
    assert shared.kernel_rules[1].name == "renamed"
    assert shared.negotiation_rules[0] is former.negotiation_rules[0]
    assert shared.negotiation_rules[1].name == "renamed"
