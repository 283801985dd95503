"""A rule keeps its id as long as nothing that matters to its SAs changes: over reload, restart and reordering."""

import hashlib
import random

import pytest

from policy_loader import policy_file, rule_ids
from policy_loader.compile import Policy
from policy_loader.diff import diff
from policy_loader.rule_ids import LAST_RULE_ID, RuleIds

SETUP = """
[setup]
interfaces = ["eth0"]
unmatched = "bypass"
[proposals.strong]
esp = ["aes256gcm16-esn"]
[proposals.same]
esp = ["aes256gcm16-esn"]
"""
PEER = """
[peers.branch]
address = "198.51.100.7"
local_address = "192.0.2.1"
local_id = "hq.example.net"
auth = "psk"
psk = "correct horse battery staple"
"""
LAN = """
[[rules]]
name = "lan"
action = "protect"
local = ["10.1.0.0/16"]
remote = ["10.2.0.0/16"]
peer = "branch"
rekey = "1h"
"""
SSH = """
[[rules]]
name = "ssh"
action = "bypass"
protocol = "tcp"
local_port = 22
"""
DNS = """
[[rules]]
name = "dns"
action = "bypass"
protocol = "udp"
remote_port = 53
"""


def policy(*parts: str, ids: RuleIds | None = None) -> Policy:
    file = policy_file.read("x", "".join(parts).encode(), 0o600, 0)
    return file.compile({}, ids or RuleIds()).policy


def ids_by_name(one: Policy) -> dict[str, int]:
    return {rule.name: rule.rule_id for rule in one.kernel_rules}


def test_ids_are_in_range_and_unique() -> None:
    numbers = RuleIds().assign([bytes([n % 256, n // 256]) for n in range(5000)])
    assert len(set(numbers)) == 5000
    assert min(numbers) >= 1
    assert max(numbers) <= LAST_RULE_ID


def test_reload_restart_and_reordering_keep_ids() -> None:
    ids = RuleIds()
    first = ids_by_name(policy(SETUP, PEER, LAN, SSH, DNS, ids=ids))
    assert ids_by_name(policy(SETUP, PEER, LAN, SSH, DNS, ids=ids)) == first
    assert ids_by_name(policy(DNS, SSH, PEER, LAN, SETUP, ids=ids)) == first
    assert ids_by_name(policy(DNS, SSH, PEER, LAN, SETUP)) == first
    shorter = ids_by_name(policy(SETUP, PEER, LAN, ids=ids))
    assert shorter == {"lan": first["lan"]}
    assert ids_by_name(policy(SETUP, PEER, LAN, SSH, DNS, ids=ids)) == first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "lan"', 'name = "renamed"'),
        ('rekey = "1h"', 'rekey = 3600\nstart = "at-start"'),
        ('rekey = "1h"', 'rekey = "60m"\nlife = "75m"'),
        ('psk = "correct horse battery staple"', 'psk = "another key, made this morning"'),
        ('auth = "psk"', 'auth = "psk"\nliveness = "1m"\nike_rekey = "1d"'),
        ('remote = ["10.2.0.0/16"]', 'remote = ["10.2.0.0/16"] # comment'),
    ],
)
def test_what_does_not_matter_to_sas_keeps_the_id(old: str, new: str) -> None:
    before, after = (SETUP + PEER + LAN), (SETUP + PEER + LAN).replace(old, new)
    assert after != before
    assert policy(after).kernel_rules[0].rule_id == policy(before).kernel_rules[0].rule_id


def test_proposals_count_by_what_they_allow_and_not_by_name() -> None:
    strong, same = (
        policy(SETUP, PEER, LAN, f'proposals = "{name}"').kernel_rules[0].rule_id for name in ("strong", "same")
    )
    assert strong == same != policy(SETUP, PEER, LAN).kernel_rules[0].rule_id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('local = ["10.1.0.0/16"]', 'local = ["10.1.0.0/17"]'),
        ('local = ["10.1.0.0/16"]', 'local = ["10.1.0.0/16", "10.5.0.0/16"]'),
        ('remote = ["10.2.0.0/16"]', 'remote = ["10.3.0.0/16"]'),
        ('rekey = "1h"', 'rekey = "2h"'),
        ('rekey = "1h"', 'life = "8h"'),
        ('rekey = "1h"', 'protocol = "tcp"'),
        ('rekey = "1h"', 'protocol = "tcp"\nlocal_port = 80'),
        ('rekey = "1h"', 'protocol = "tcp"\nremote_port = 80'),
        ('address = "198.51.100.7"', 'address = "198.51.100.8"'),
        ('local_address = "192.0.2.1"', 'local_address = "192.0.2.2"'),
        ('local_id = "hq.example.net"', 'local_id = "hq.example.org"'),
        ('auth = "psk"', 'auth = "psk"\nremote_id = "branch.example.net"'),
        ('auth = "psk"', 'auth = "psk"\nforce_encapsulation = true'),
        ("[peers.branch]", '[proposals.default]\nesp = ["aes128gcm16"]\n[peers.branch]'),
        ("[peers.branch]", '[proposals.default]\nike = ["aes128gcm16-prfsha256-x25519"]\n[peers.branch]'),
        ("branch", "depot"),
    ],
)
def test_what_matters_to_sas_gives_a_new_id(old: str, new: str) -> None:
    ids = RuleIds()
    before, after = (SETUP + PEER + LAN), (SETUP + PEER + LAN).replace(old, new)
    assert after != before
    assert policy(after, ids=ids).kernel_rules[0].rule_id != policy(before, ids=ids).kernel_rules[0].rule_id


def test_one_side_is_not_taken_for_the_other() -> None:
    turned = LAN.replace("local =", "x =").replace("remote =", "local =").replace("x =", "remote =")
    assert policy(SETUP, PEER, turned).kernel_rules[0].rule_id != policy(SETUP, PEER, LAN).kernel_rules[0].rule_id


def test_equal_rules_have_an_id_each() -> None:
    ids = [rule.rule_id for rule in policy(SETUP, DNS, DNS.replace("dns", "again")).kernel_rules]
    assert len(set(ids)) == 2
    assert ids[0] == policy(SETUP, DNS).kernel_rules[0].rule_id


@pytest.fixture
def few_ids(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(rule_ids, "LAST_RULE_ID", 64)
    return 64


def fingerprints(count: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % number).digest() for number in range(count)]


def test_collisions_are_settled_alike_in_every_process_and_order(few_ids: int) -> None:
    prints = fingerprints(40)
    first = dict(zip(prints, RuleIds().assign(prints), strict=True))
    assert sorted(set(first.values())) == sorted(first.values())
    assert max(first.values()) <= few_ids
    random.Random(7).shuffle(prints)
    assert dict(zip(prints, RuleIds().assign(prints), strict=True)) == first


def test_an_id_is_never_given_to_another_rule(few_ids: int) -> None:
    ids, prints = RuleIds(), fingerprints(60)
    owners: dict[int, bytes] = {}
    for start in range(0, 50, 5):
        some = prints[start : start + 10]
        for fingerprint, number in zip(some, ids.assign(some), strict=True):
            assert owners.setdefault(number, fingerprint) == fingerprint
    assert len(owners) > 50


def test_ids_of_old_policies_are_forgotten_only_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_ids, "MOST_REMEMBERED", 100)
    ids, prints = RuleIds(), fingerprints(1000)
    kept = ids.assign(prints[:10])
    for start in range(10, 1000, 30):
        assert ids.assign(prints[:10] + prints[start : start + 30])[:10] == kept


def test_a_diff_names_what_happens_to_each_rule() -> None:
    ids = RuleIds()
    old = policy(SETUP, PEER, LAN, SSH, DNS, ids=ids)
    changed = LAN.replace("10.2.0.0/16", "10.3.0.0/16")
    new = policy(
        SETUP, PEER, DNS.replace('"dns"', '"names"'), changed, SSH.replace("22", "23").replace("ssh", "telnet"), ids=ids
    )
    result = diff(old, new)
    assert result.added == ("telnet",)
    assert result.changed == ("lan",)
    assert result.removed == ("ssh",)
    assert result.kept == ("names",)
    assert str(result) == "1 rules added, 1 changed, 1 removed, 1 kept"
    assert diff(None, old).added == ("lan", "ssh", "dns")
    assert diff(old, old).kept == ("lan", "ssh", "dns")
