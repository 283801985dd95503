"""The guard's table: each row is one thing that is not allowed, and the word by which it says so."""

import dataclasses
import ipaddress
from typing import Any

import pytest

from ipc.algorithms import AES128CBC, CHACHA20POLY1305, Cipher, EncryptionId, IntegrityId
from ipc.messages import KernelRule
from ipc.types import (
    ANY_PORT,
    Action,
    Direction,
    Mode,
    NextLayer,
    PortRange,
    Prefix,
    Secret,
    TrafficSelector,
    UdpEncapsulation,
)
from kernel_agent import guard
from kernel_agent.guard import Installed, Refused
from tests.kernel_agent.values import OURS, THEIRS, name_of, rule, sa, selector

STRANGER = ipaddress.ip_address("192.0.2.66")
ANY_SPI = Installed(names=(), per_rule={}, allocated=None)
RULES = {1: rule(1), 2: rule(2, Action.BYPASS)}


def backwards() -> TrafficSelector:
    return dataclasses.replace(selector("10.1.0.0/24"), end_address=ipaddress.ip_address("10.0.0.1"))


def test_a_range_is_inside_of_the_prefixes_that_make_it_up() -> None:
    def between(first: str, last: str) -> TrafficSelector:
        ends = {"start_address": ipaddress.ip_address(first), "end_address": ipaddress.ip_address(last)}
        return dataclasses.replace(selector("10.1.0.0/24"), **ends)

    rules = {1: rule(1, local=("10.1.0.8/31", "10.1.0.5/32", "10.1.0.6/31", "fd01::/64"))}
    guard.check_sa(sa(local=(between("10.1.0.5", "10.1.0.9"),)), rules)
    for first, last in (("10.1.0.4", "10.1.0.9"), ("10.1.0.5", "10.1.0.10"), ("10.1.0.0", "10.1.0.255")):
        with pytest.raises(Refused, match="outside rule"):
            guard.check_sa(sa(local=(between(first, last),)), rules)


def test_a_peer_whose_address_is_not_known_may_be_anywhere() -> None:
    anywhere = dataclasses.replace(rule(1), peer_address=None)
    guard.check_rule(anywhere)
    guard.check_sa(sa(destination=STRANGER), {1: anywhere})
    with pytest.raises(Refused, match="fixed keys without the peer"):
        guard.check_rule(dataclasses.replace(anywhere, manual=True))


@pytest.mark.parametrize("direction", [Direction.IN, Direction.OUT])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"esn": False},
        {"local": (selector("10.1.0.7/32", 6, PortRange(first=80, last=80)),)},
        {"encapsulation": UdpEncapsulation(source_port=4500, destination_port=61234)},
        {"replay_window_packets": 1024},
    ],
)
def test_what_the_rule_asks_for_passes(direction: Direction, changes: dict[str, Any]) -> None:
    guard.check_new_sas((sa(direction, **changes),), RULES, ANY_SPI)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule_id": 9}, "no rule 9"),
        ({"rule_id": 2}, "does not protect"),
        ({"direction": Direction.FORWARD}, "in or out"),
        ({"spi": 255}, "out of range"),
        ({"spi": 1 << 32}, "out of range"),
        ({"mode": Mode.TRANSPORT}, "wants tunnel"),
        ({"destination": STRANGER}, "not the peer"),
        ({"source": STRANGER}, "not our end"),
        ({"destination": ipaddress.ip_address("fd09::2")}, "two address families"),
        ({"cipher": AES128CBC}, "lacks integrity"),
        ({"cipher": AES128CBC, "integrity": IntegrityId.HMAC_SHA2_256_128}, "not among the proposals"),
        ({"cipher": CHACHA20POLY1305}, "not among the proposals"),
        ({"cipher": Cipher(id=EncryptionId.AES_GCM_16, key_bits=200)}, "no cipher"),
        ({"integrity": IntegrityId.HMAC_SHA2_256_128}, "has it twice"),
        ({"encryption_key": Secret(bytes(16))}, "a key of 16 bytes, not 20"),
        ({"integrity_key": Secret(bytes(1))}, "an integrity key of 1 bytes"),
        ({"local": ()}, "without traffic selectors"),
        ({"local": (selector("10.1.0.0/16"),)}, "outside rule"),
        ({"local": (selector("fd01::/64"),)}, "outside rule"),
        ({"remote": (selector("10.2.0.0/24"), selector("0.0.0.0/0"))}, "outside rule"),
        ({"local": (backwards(),)}, "outside rule"),
        ({"local": (selector("10.1.0.0/24", 300),)}, "outside rule"),
        ({"local": (selector("10.1.0.0/24", 6, PortRange(first=0, last=70000)),)}, "outside rule"),
        ({"replay_window_packets": 1025}, "at most 1024"),
        ({"acquire_id": 1 << 32}, "acquire id"),
        ({"encapsulation": UdpEncapsulation(source_port=4500, destination_port=0)}, "UDP ports"),
        ({"encapsulation": UdpEncapsulation(source_port=4500, destination_port=1 << 40)}, "UDP ports"),
    ],
)
def test_what_the_rule_does_not_ask_for_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        guard.check_new_sas((sa(**changes),), RULES, ANY_SPI)


def test_inbound_addresses_are_checked_the_other_way_round() -> None:
    guard.check_sa(sa(Direction.IN), RULES)
    with pytest.raises(Refused, match="not the peer"):
        guard.check_sa(sa(Direction.IN, source=OURS, destination=THEIRS), RULES)


def test_protocol_and_ports_of_the_rule_bind_the_selectors() -> None:
    narrow = {1: rule(1, protocol=6, remote_port=PortRange(first=80, last=443))}
    inside = (selector("10.2.0.0/24", 6, PortRange(first=80, last=80)),)
    tcp = (selector("10.1.0.0/24", 6),)
    guard.check_sa(sa(local=tcp, remote=inside), narrow)
    for outside in (selector("10.2.0.0/24", 6), selector("10.2.0.0/24"), selector("10.2.0.0/24", 17)):
        with pytest.raises(Refused, match="outside rule"):
            guard.check_sa(sa(local=tcp, remote=(outside,)), narrow)


def test_a_rule_with_lists_binds_each_selector_to_the_ports_of_its_protocol() -> None:
    dns = NextLayer(protocol=17, remote_port=PortRange(first=53, last=53))
    lists = {1: dataclasses.replace(rule(1, protocol=6, remote_port=PortRange(first=80, last=443)), also=(dns,))}
    local = (selector("10.1.0.0/24", 6), selector("10.1.0.0/24", 17))
    web, names = selector("10.2.0.0/24", 6, PortRange(first=80, last=80)), selector("10.2.0.0/24", 17, dns.remote_port)
    guard.check_sa(sa(local=local, remote=(web, names)), lists)
    for protocol, ports in ((17, PortRange(first=80, last=80)), (6, dns.remote_port), (17, ANY_PORT), (1, ANY_PORT)):
        with pytest.raises(Refused, match="outside rule"):
            guard.check_sa(sa(local=local, remote=(web, selector("10.2.0.0/24", protocol, ports))), lists)


def test_esn_must_be_proposed() -> None:
    (proposal,) = rule(1).esp_proposals
    without = {1: dataclasses.replace(rule(1), esp_proposals=(dataclasses.replace(proposal, esn=()),))}
    guard.check_sa(sa(esn=False), without)
    with pytest.raises(Refused, match="not among the proposals"):
        guard.check_sa(sa(esn=True), without)


def test_transport_mode_protects_only_its_own_ends() -> None:
    hosts = {1: rule(1, mode=Mode.TRANSPORT, local=("10.9.0.1/32",), remote=("10.9.0.2/32",))}
    ends = {"local": (selector("10.9.0.1/32"),), "remote": (selector("10.9.0.2/32"),), "mode": Mode.TRANSPORT}
    guard.check_sa(sa(**ends), hosts)
    elsewhere = {1: rule(1, mode=Mode.TRANSPORT)}
    with pytest.raises(Refused, match="outside rule"):
        guard.check_sa(sa(mode=Mode.TRANSPORT), elsewhere)


def test_inbound_spis_are_ours_to_give() -> None:
    given = Installed(names=(), per_rule={}, allocated=(0x1000,))
    guard.check_new_sas((sa(Direction.IN, 0x1000),), RULES, given)
    guard.check_new_sas((sa(Direction.OUT, 0x2000),), RULES, given)
    with pytest.raises(Refused, match="not allocated"):
        guard.check_new_sas((sa(Direction.IN, 0x2000),), RULES, given)


def test_a_name_is_taken_only_once() -> None:
    one = sa()
    with pytest.raises(Refused, match="in use"):
        guard.check_new_sas((one, one), RULES, ANY_SPI)
    with pytest.raises(Refused, match="in use"):
        guard.check_new_sas((one,), RULES, Installed(names=(name_of(one),), per_rule={}, allocated=None))


def test_a_rule_has_a_bounded_number_of_sas() -> None:
    nearly = Installed(names=(), per_rule={1: guard.MAX_SAS_PER_RULE - 1}, allocated=None)
    guard.check_new_sas((sa(),), RULES, nearly)
    with pytest.raises(Refused, match="1024 SAs already"):
        guard.check_new_sas((sa(), sa(spi=0x9999)), RULES, nearly)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dataclasses.replace(rule(1), rule_id=0), "id 0"),
        (dataclasses.replace(rule(1), rule_id=1 << 20), "id 1048576"),
        (dataclasses.replace(rule(1), position=1 << 40), "position"),
        (dataclasses.replace(rule(1), protocol=256), "protocol"),
        (dataclasses.replace(rule(1), local=(Prefix(address=OURS, length=24),)), "no prefix"),
        (dataclasses.replace(rule(1), local=(Prefix(address=OURS, length=33),)), "no prefix"),
        (dataclasses.replace(rule(1), local_port=PortRange(first=9, last=8)), "no port range"),
        (dataclasses.replace(rule(1), remote_port=PortRange(first=0, last=65536)), "no port range"),
        (dataclasses.replace(rule(1), also=(NextLayer(protocol=256),)), "protocol"),
        (dataclasses.replace(rule(1), also=(NextLayer(local_port=PortRange(first=9, last=8)),)), "no port range"),
        (dataclasses.replace(rule(1), peer_address=None, manual=True), "without the peer"),
        (dataclasses.replace(rule(1), peer_address=ipaddress.ip_address("fd09::2")), "two address families"),
        (dataclasses.replace(rule(1), esp_proposals=()), "without an ESP proposal"),
    ],
)
def test_rules_that_no_kernel_could_hold_are_refused(wrong: KernelRule, said: str) -> None:
    with pytest.raises(Refused, match=said):
        guard.check_rule(wrong)
