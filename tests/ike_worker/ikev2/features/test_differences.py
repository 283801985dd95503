"""What differs is told in the SPD's words, and what is said to match does match, tried by the code that chooses."""

import random
import re
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from ike_worker.ikev2.features.differences import addresses_text, of_proposals, of_selectors, words_of
from ike_worker.ikev2.iana import ProtocolId, TransformType
from ike_worker.ikev2.selection import choose_esp, choose_ike, offer_esp, offer_ike
from ike_worker.ikev2.wire.sa import Proposal, SecurityAssociation, Transform
from ipc.types import TrafficSelector
from policy_loader.proposals import parse_esp, parse_ike
from tests.ike_worker.ikev2.two_sides import net, rule_of

IKE_PARTS = (
    ("aes256gcm16", "aes128gcm16", "chacha20poly1305", "aes256-sha256", "aes128-sha512", "aes256ctr-sha384"),
    ("prfsha256", "prfsha384", "prfsha512"),
    ("x25519", "ecp256", "modp2048", "ecp384"),
)
ESP_PARTS = (
    ("aes256gcm16", "aes128gcm16", "chacha20poly1305", "aes256-sha256", "aes128-sha512"),
    ("esn", "noesn", "esn-noesn"),
)


def ike(*texts: str) -> SecurityAssociation:
    return offer_ike(tuple(parse_ike(text) for text in texts))


def esp(*texts: str) -> SecurityAssociation:
    return offer_esp(tuple(parse_esp(text) for text in texts), 0x1234, key_exchange=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "first", "remedy"),
    [
        (
            "aes256gcm16-prfsha256-x25519",
            "aes256gcm16-prfsha256-ecp256",
            "key exchange: ours x25519, theirs ecp256",
            'here, write "aes256gcm16-prfsha256-x25519-ecp256" for "aes256gcm16-prfsha256-x25519" '
            'in ike of the proposals of peer "bob"; or have the peer offer "x25519"',
        ),
        (
            "aes256gcm16-prfsha384-x25519",
            "aes128gcm16-prfsha256-x25519",
            "encryption: ours aes256gcm16, theirs aes128gcm16",
            'here, write "aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519" for "aes256gcm16-prfsha384-x25519" '
            'in ike of the proposals of peer "bob"; or have the peer offer "aes256gcm16-prfsha384"',
        ),
        (
            "aes256gcm16-prfsha256-x25519",
            "aes256-sha256-prfsha256-x25519",
            "encryption: ours aes256gcm16, theirs aes256",
            'here, add "aes256-sha256-prfsha256-x25519" to ike of the proposals of peer "bob"; '
            'or have the peer offer "aes256gcm16-prfsha256-x25519"',
        ),
        (
            "aes256-sha256-prfsha256-x25519",
            "aes256-sha512-prfsha256-x25519",
            "integrity: ours sha256, theirs sha512",
            'here, write "aes256-sha256-sha512-prfsha256-x25519" for "aes256-sha256-prfsha256-x25519" '
            'in ike of the proposals of peer "bob"; or have the peer offer "sha256"',
        ),
    ],
)
def test_the_first_difference_and_the_smallest_change(ours: str, theirs: str, first: str, remedy: str) -> None:
    found = of_proposals(ike(ours), ike(theirs), peer="bob")
    assert (found.ours, found.theirs, found.first, found.remedy) == ((ours,), (theirs,), first, remedy)


def test_the_closest_pair_of_many_is_compared() -> None:
    ours = ike("aes256-sha256-prfsha256-modp2048", "aes256gcm16-prfsha256-x25519")
    found = of_proposals(ours, ike("chacha20poly1305-prfsha512-ecp384", "aes256gcm16-prfsha256-ecp256"), peer="bob")
    assert found.first == "key exchange: ours x25519, theirs ecp256"
    assert (len(found.ours), len(found.theirs)) == (2, 2)


Parse = Callable[[str], object]


def changed(parse: Parse, ours: tuple[str, ...], remedy: str) -> tuple[str, ...]:
    """The proposals of an operator who does what the first half of `remedy` says."""
    replaced = re.match(r'here, write "([^"]+)" for "([^"]+)"', remedy)
    if replaced:
        assert parse(replaced[2]) in map(parse, ours), remedy
        return tuple(replaced[1] if parse(one) == parse(replaced[2]) else one for one in ours)
    added = re.match(r'here, add "([^"]+)"', remedy)
    assert added, remedy
    return (*ours, added[1])


@pytest.mark.parametrize("seed", range(200))
def test_what_is_said_to_match_matches(seed: int) -> None:
    chance = random.Random(seed)
    ours, theirs = (
        tuple("-".join(chance.choice(part) for part in IKE_PARTS) for _ in range(chance.randint(1, 3)))
        for _side in range(2)
    )
    if choose_ike(tuple(map(parse_ike, ours)), ike(*theirs)) is None:
        after = changed(parse_ike, ours, of_proposals(ike(*ours), ike(*theirs), peer="bob").remedy)
        assert choose_ike(tuple(map(parse_ike, after)), ike(*theirs)) is not None, (ours, theirs, after)
    own, other = (tuple("-".join(chance.choice(part) for part in ESP_PARTS) for _ in range(2)) for _side in range(2))
    if choose_esp(tuple(map(parse_esp, own)), esp(*other), key_exchange=True) is None:
        after = changed(parse_esp, own, of_proposals(esp(*own), esp(*other), peer="bob").remedy)
        assert choose_esp(tuple(map(parse_esp, after)), esp(*other), key_exchange=True) is not None, (own, other, after)


def test_a_group_that_only_one_side_wants_in_a_rekey() -> None:
    found = of_proposals(esp("aes256gcm16-x25519"), esp("aes256gcm16"), peer="bob")
    assert found.first == "key exchange: ours x25519, theirs none"
    after = changed(parse_esp, ("aes256gcm16-x25519",), found.remedy)
    assert choose_esp(tuple(map(parse_esp, after)), esp("aes256gcm16"), key_exchange=True) is not None
    found = of_proposals(esp("aes256gcm16"), esp("aes256gcm16-x25519"), peer="bob")
    assert found.first == "key exchange: ours none, theirs x25519"
    after = changed(parse_esp, ("aes256gcm16",), found.remedy)
    assert choose_esp(tuple(map(parse_esp, after)), esp("aes256gcm16-x25519"), key_exchange=True) is not None


def test_in_ike_auth_groups_do_not_count() -> None:
    found = of_proposals(esp("aes256gcm16-x25519"), esp("aes128gcm16"), peer="bob", key_exchange=False)
    assert found.first == "encryption: ours aes256gcm16, theirs aes128gcm16"


def test_what_ipsecd_does_not_have_is_shown_by_number() -> None:
    theirs = Proposal(
        number=1,
        protocol=ProtocolId.IKE,
        transforms=(
            Transform(type=TransformType.ENCR, id=20, key_bits=256),
            Transform(type=TransformType.PRF, id=8),
            Transform(type=TransformType.KE, id=31),
            Transform(type=6, id=36),
        ),
    )
    assert words_of(theirs) == "aes256gcm16-prf8-x25519-type6/36"
    found = of_proposals(ike("aes256gcm16-prfsha256-x25519"), SecurityAssociation(proposals=(theirs,)), peer="bob")
    assert found.first == "PRF: ours prfsha256, theirs prf8"
    assert found.remedy.startswith('have the peer offer "prfsha256"')


def test_another_protocol_is_said() -> None:
    theirs = SecurityAssociation(proposals=(Proposal(number=1, protocol=ProtocolId.AH, transforms=()),))
    assert of_proposals(esp("aes256gcm16"), theirs, peer="bob").first == "protocol: ours ESP, theirs AH"


def test_selectors_that_do_not_meet() -> None:
    rule = rule_of("alice")
    found = of_selectors([rule], (net("10.1.0.0-10.1.0.255"),), (net("10.9.0.0-10.9.0.255"),))
    assert found.ours == ("lan: local 10.1.0.0/16, remote 10.2.0.0/16",)
    assert found.theirs == ("local 10.1.0.0/24", "remote 10.9.0.0/24")
    assert found.first == "remote of rule lan: ours 10.2.0.0/16, theirs 10.9.0.0/24"
    assert found.remedy == (
        'here, add "10.9.0.0/24" to remote of rule "lan"; or have the peer ask for 10.2.0.0/16 as its local traffic'
    )


def test_selectors_that_differ_in_protocol_only() -> None:
    rule = rule_of("alice", local=(net("10.1.0.1", protocol=6, port=22),))
    found = of_selectors([rule], (net("10.1.0.1", protocol=17, port=53),), rule.remote)
    assert found.first == "local of rule lan: ours 10.1.0.1 proto 6 port 22-22, theirs 10.1.0.1 proto 17 port 53-53"
    assert 'let rule "lan" allow 10.1.0.1 proto 17 port 53-53' in found.remedy


def test_a_peer_without_a_rule_is_said_to_have_none() -> None:
    found = of_selectors([], (net("10.1.0.1"),), (net("10.2.0.1"),))
    assert found.first == "the policy has no protect rule for this peer"


def test_addresses_are_written_as_the_policy_does() -> None:
    assert addresses_text(net("10.1.0.0-10.1.255.255")) == "10.1.0.0/16"
    assert addresses_text(net("10.1.0.3-10.1.0.9")) == "10.1.0.3-10.1.0.9"
    assert addresses_text(net("fd00::1")) == "fd00::1"
    backwards = TrafficSelector(
        protocol=0, start_address=ip_address("10.0.0.2"), end_address=ip_address("10.0.0.1"), start_port=0, end_port=1
    )
    assert addresses_text(backwards) == "10.0.0.2-10.0.0.1"
