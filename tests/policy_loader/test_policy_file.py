"""A policy with what it takes from outside: templates, secrets in files, host names (T45, T46, T43)."""

import copy
import random
from ipaddress import ip_address

import pytest

from ipc.types import Action, Direction, EndAction, Mode, Secret, StartAction
from policy_loader import policy_file
from policy_loader.compile import Policy
from policy_loader.errors import PolicyError
from policy_loader.policy_file import FoundHost, LoadedPolicy
from policy_loader.rule_ids import RuleIds
from policy_loader.sources.file import SourceFile

SETUP = """
[setup]
interfaces = ["eth0"]
unmatched = "bypass"
"""
PEER = """
[peers.branch]
address = "198.51.100.7"
local_id = "hq.example.net"
auth = "psk"
psk = "correct horse battery staple"
"""
RULE = """
[[rules]]
name = "lan"
action = "protect"
local = ["10.1.0.0/16"]
remote = ["10.2.0.0/16"]
peer = "branch"
"""
HOST = PEER.replace("198.51.100.7", "branch.example.net")
MANUAL = f"""
[peers.branch]
address = "198.51.100.7"
local_address = "192.0.2.1"
auth = "manual"
algorithm = "aes256-sha256"
spi_in = "0x1001"
spi_out = 8194
key_in = "{"a1" * 32}{"b2" * 32}"
key_out = "{"c3" * 64}"
"""


def loaded(
    text: str, templates: str | None = None, hosts: dict[str, FoundHost] | None = None, mode: int = 0o600
) -> LoadedPolicy:
    beside = None
    if templates is not None:
        beside = SourceFile(path="t", content=Secret(templates.encode()), mode=mode, uid=0)
    return policy_file.read("x", text.encode(), 0o600, 0, beside).compile({}, RuleIds(), hosts)


def policy(*parts: str, templates: str | None = None) -> Policy:
    return loaded("".join(parts), templates).policy


# ------------------------------------------------------------- templates


def test_t45_what_the_policy_does_not_say_the_templates_do() -> None:
    templates = (
        SETUP
        + """
[proposals.default]
esp = ["aes128gcm16"]
[addresses]
offices = ["10.1.0.0/16"]
[defaults.peers]
liveness = 7
[defaults.rules]
rekey = "10m"
close = "start"
"""
    )
    rule = RULE.replace('"10.1.0.0/16"', '"offices"')
    found = policy(PEER, rule, templates=templates)
    (kernel,), (negotiation,), (peer,) = found.kernel_rules, found.negotiation_rules, found.peers
    assert found.interfaces == ("eth0",)
    assert str(kernel.local[0]) == "10.1.0.0/16"
    assert [one.encryption[0].key_bits for one in kernel.esp_proposals] == [128]
    assert (negotiation.rekey_s, negotiation.close_action, peer.liveness_s) == (600.0, EndAction.START, 7.0)


def test_t46_the_policy_overrides_the_templates_key_by_key() -> None:
    templates = """
[setup]
interfaces = ["eth9"]
unmatched = "discard"
ip_forward = "on"
[defaults.rules]
rekey = "10m"
idle = "5m"
"""
    (one, other) = policy(
        SETUP, PEER, RULE, 'rekey = "2h"\n', RULE.replace("lan", "other"), "[defaults.rules]\nrekey = 60\n",
        templates=templates,
    ).negotiation_rules  # fmt: skip
    assert (one.rekey_s, one.idle_s) == (7200.0, 300.0)
    assert (other.rekey_s, other.idle_s) == (60.0, 300.0)
    found = policy(SETUP, templates=templates)
    assert (found.interfaces, found.unmatched.name, found.ip_forward.name) == (("eth0",), "BYPASS", "ON")


def test_defaults_are_for_those_that_may_have_them() -> None:
    bypass = '[[rules]]\nname = "ssh"\naction = "bypass"\n'
    found = policy(SETUP, MANUAL, RULE, bypass, "[defaults.rules]\nstart = 'at-start'\n[defaults.peers]\nreauth = 60\n")
    assert [rule.name for rule in found.kernel_rules] == ["lan", "ssh"]


def test_t43_templates_that_others_may_read_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"t:1:1: file: mode is 0644"):
        loaded(SETUP, SETUP, mode=0o644)


def test_errors_of_both_files_are_told_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        loaded("[setup]\nunmatchd = 1", "[setup]\nip_forwrd = 1")
    assert [one.partition(": ")[0] for one in caught.value.complaints][:2] == ["t:2:1", "x:1:1"]


# ------------------------------------------------------------- peers by name, and anywhere


def hosts(*addresses: str) -> dict[str, FoundHost]:
    found = tuple(ip_address(address) for address in addresses)
    return {"branch.example.net": FoundHost(addresses=found, error="" if found else "no such name")}


def test_a_host_name_is_the_address_that_fits_our_own() -> None:
    text = SETUP + HOST + 'local_address = "192.0.2.1"\n' + RULE
    one = loaded(text, hosts=hosts("2001:db8::7", "198.51.100.8"))
    assert not one.warnings
    (peer,), (rule,) = one.policy.peers, one.policy.kernel_rules
    assert peer.address == rule.peer_address == ip_address("198.51.100.8")
    assert str(peer.remote_id) == "branch.example.net"
    other = loaded(text, hosts=hosts("198.51.100.9")).policy.kernel_rules[0]
    assert other.rule_id != rule.rule_id


def test_the_rules_of_a_host_that_is_not_found_drop_their_packets() -> None:
    found = loaded(SETUP + HOST + RULE, hosts=hosts())
    (rule,) = found.policy.kernel_rules
    assert (rule.action, rule.peer_address) == (Action.DISCARD, None)
    assert (found.policy.peers, found.policy.negotiation_rules) == ((), ())
    (warning,) = found.warnings
    assert '"branch.example.net" is not found: no such name' in warning


def test_a_transport_rule_of_a_host_is_about_just_its_address_or_left_out() -> None:
    text = SETUP + HOST + '[[rules]]\nname = "host"\naction = "protect"\nmode = "transport"\npeer = "branch"\n'
    (rule,) = loaded(text, hosts=hosts("198.51.100.8")).policy.kernel_rules
    assert ([str(one) for one in rule.remote], rule.mode) == (["198.51.100.8/32"], Mode.TRANSPORT)
    assert [one.address.version for one in rule.local] == [4]
    assert loaded(text, hosts=hosts()).policy.kernel_rules == ()


def test_a_peer_from_anywhere_is_never_called() -> None:
    text = SETUP + PEER.replace("198.51.100.7", "any") + 'remote_id = "road@example.net"\n' + RULE
    found = loaded(text).policy
    assert (found.peers[0].address, found.kernel_rules[0].peer_address) == (None, None)
    assert found.kernel_rules[0].action is Action.PROTECT
    assert found.negotiation_rules[0].start is StartAction.RESPOND_ONLY


# ------------------------------------------------------------- manual keys


def test_o26_manual_keys_become_two_sas_and_nothing_for_the_worker() -> None:
    found = policy(SETUP, MANUAL, RULE)
    (rule,) = found.kernel_rules
    assert (rule.manual, rule.action, rule.peer_address) == (True, Action.PROTECT, ip_address("198.51.100.7"))
    assert (found.peers, found.negotiation_rules) == ((), ())
    inward, outward = found.manual_sas
    assert (inward.direction, inward.spi, str(inward.source)) == (Direction.IN, 0x1001, "198.51.100.7")
    assert (outward.direction, outward.spi, str(outward.destination)) == (Direction.OUT, 8194, "198.51.100.7")
    assert inward.encryption_key.reveal() == b"\xa1" * 32
    assert inward.integrity_key.reveal() == b"\xb2" * 32
    assert (inward.rule_id, inward.replay_window_packets, inward.esn) == (rule.rule_id, 0, False)
    assert [str(one) for one in (*inward.local, *inward.remote)] == ["10.1.0.0-10.1.255.255", "10.2.0.0-10.2.255.255"]
    assert "a1a1" not in repr(found)


@pytest.mark.parametrize(
    ("old", "new"), [("a1", "a2"), ("0x1001", "0x1002"), ("aes256", "aes128"), ("8194", "8195"), ("2.1", "2.2")]
)
def test_other_manual_keys_make_another_rule_id(old: str, new: str) -> None:
    changed = MANUAL.replace(old, new)
    if new == "aes128":
        changed = changed.replace("a1" * 32, "a1" * 16).replace("c3" * 64, "c3" * 48)
    assert changed != MANUAL
    assert policy(SETUP, changed, RULE).kernel_rules[0].rule_id != policy(SETUP, MANUAL, RULE).kernel_rules[0].rule_id


# ------------------------------------------------------------- rules


def test_ranges_are_prefixes_for_the_kernel_and_ranges_for_ike() -> None:
    found = policy(SETUP, PEER, RULE.replace("10.2.0.0/16", "10.2.0.5-10.2.0.9"))
    assert [str(one) for one in found.kernel_rules[0].remote] == ["10.2.0.5/32", "10.2.0.6/31", "10.2.0.8/31"]
    assert [str(one) for one in found.negotiation_rules[0].remote] == ["10.2.0.5-10.2.0.9"]


def test_an_icmp_type_stands_on_both_sides() -> None:
    found = policy(SETUP, PEER, RULE, 'protocol = "icmp"\nicmp_type = "echo-request"\n')
    (kernel,), (negotiation,) = found.kernel_rules, found.negotiation_rules
    assert (kernel.local_port.first, kernel.local_port.last) == (0x0800, 0x08FF)
    assert kernel.remote_port == kernel.local_port
    assert (negotiation.local[0].start_port, negotiation.remote[0].end_port) == (0x0800, 0x08FF)


def test_lifetimes_ends_and_the_interface_reach_those_who_need_them() -> None:
    settings = (
        'rekey_bytes = "1GB"\nrekey_packets = 1000\nlife_packets = 9000\nclose = "clear"\nidle = "5m"\n'
        'interface = "eth0"\n'
    )
    peer = PEER + 'reauth = "1d"\nliveness_action = "start"\n'
    found = policy(SETUP, peer, RULE, settings)
    (kernel,), (rule,), (compiled,) = found.kernel_rules, found.negotiation_rules, found.peers
    assert (rule.rekey_bytes, rule.life_bytes) == (10**9, 1_250_000_000)
    assert (rule.rekey_packets, rule.life_packets) == (1000, 9000)
    assert (rule.close_action, rule.idle_s, kernel.interface) == (EndAction.CLEAR, 300.0, "eth0")
    assert (compiled.reauth_s, compiled.liveness_action) == (86400.0, EndAction.START)


# ------------------------------------------------------------- what was read before


def variant(chance: random.Random) -> str:
    """A policy with parts that come, go, move and change."""
    rules = [
        RULE.replace("lan", f"lan-{number}").replace("10.2.", f"10.{number + 2}.") + chance.choice(GOOD)
        for number in range(8)
        if chance.random() < 0.9
    ]
    if chance.random() < 0.3:
        chance.shuffle(rules)
    if chance.random() < 0.2:
        rules.append(RULE + chance.choice(BAD))
    head = [chance.choice(("", "", "# a comment\n")), SETUP, PEER.replace("staple", chance.choice(("staple", "nail")))]
    head.append(chance.choice(("", "", "[defaults.rules]\nidle = 60\n", "[defaults.rules]\nidle = 61\n")))
    head.append(
        chance.choice(("", "", '[addresses]\nnets = ["10.77.0.0/16"]\n', '[addresses]\nnets = ["10.78.0.0/16"]\n'))
    )
    head.append(chance.choice(("", "", '[proposals.default]\nesp = ["aes128gcm16"]\n')))
    return "".join(head + rules)


GOOD = ("", "", "", "rekey = 600\n", "rekey = 600.0\n", 'start = "at-start"\n', 'protocol = "udp"\nlocal_port = 1\n')
BAD = ("rekey = true\n", 'protocol = "udp"\nlocal_port = true\n', "rekey = 2026-01-01\n", "rekey = 1\nlife = 1\n")


@pytest.mark.parametrize("seed", range(40))
def test_what_was_read_before_changes_nothing_in_what_is_read_now(seed: int) -> None:
    chance, ids = random.Random(seed), RuleIds()
    former: LoadedPolicy | None = None
    for _ in range(12):
        found: list[LoadedPolicy | tuple[str, ...]] = []
        text = variant(chance).encode()
        for known, numbers in ((former, ids), (None, copy.deepcopy(ids))):
            try:
                file = policy_file.read("x", text, 0o600, 0, former=None if known is None else known.file)
                found.append(file.compile({}, numbers, former=known))
            except PolicyError as error:
                found.append(error.complaints)
        quick, slow = found
        if not isinstance(quick, LoadedPolicy) or not isinstance(slow, LoadedPolicy):
            assert quick == slow
            continue
        assert (quick.policy, quick.warnings) == (slow.policy, slow.warnings)
        former = quick


def test_of_a_rule_that_stands_as_before_every_object_is_the_same() -> None:
    text = SETUP + PEER + RULE + RULE.replace("lan", "other").replace("10.2.", "10.3.")
    ids = RuleIds()
    before = policy_file.read("x", text.encode(), 0o600, 0).compile({}, ids)
    changed = text.replace("10.3.", "10.4.").encode()
    after = policy_file.read("x", changed, 0o600, 0, former=before.file).compile({}, ids, former=before)
    same = [one is other for one, other in zip(before.policy.compiled, after.policy.compiled, strict=True)]
    assert same == [True, False]
    assert after.policy.kernel_rules[0] is before.policy.kernel_rules[0]
    assert after.policy.negotiation_rules[0] is before.policy.negotiation_rules[0]


def test_what_python_takes_for_equal_is_told_apart() -> None:
    text = SETUP + PEER + RULE + 'protocol = "udp"\nlocal_port = 1\n'
    before = policy_file.read("x", text.encode(), 0o600, 0)
    for wrong in ("true", "1.0"):
        with pytest.raises(PolicyError, match="local_port"):
            policy_file.read("x", text.replace("= 1\n", f"= {wrong}\n").encode(), 0o600, 0, former=before)
