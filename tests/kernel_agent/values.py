"""Rules and SAs for the tests of the agent, with few words."""

import dataclasses
import ipaddress
from typing import Any

from ipc.algorithms import AES128GCM16, AES256GCM16, EsnId, EspProposal, IntegrityId
from ipc.messages import KernelRule, Sa, SaName
from ipc.types import ANY_PORT, Action, Direction, Mode, PortRange, Prefix, Secret, TrafficSelector, Unmatched
from kernel_agent.data_path import SecurityPolicy

OURS = ipaddress.ip_address("10.9.0.1")
THEIRS = ipaddress.ip_address("10.9.0.2")


def prefix(text: str) -> Prefix:
    """ "10.1.0.0/16" as a Prefix."""
    network = ipaddress.ip_network(text)
    return Prefix(address=network.network_address, length=network.prefixlen)


def rule(
    rule_id: int,
    action: Action = Action.PROTECT,
    *,
    local: tuple[str, ...] = ("10.1.0.0/24",),
    remote: tuple[str, ...] = ("10.2.0.0/24",),
    position: int | None = None,
    protocol: int = 0,
    local_port: PortRange = ANY_PORT,
    remote_port: PortRange = ANY_PORT,
    mode: Mode = Mode.TUNNEL,
) -> KernelRule:
    """A rule between the nets behind two gateways; its position is its id where none is given."""
    protects = action is Action.PROTECT
    proposal = EspProposal(
        encryption=(AES256GCM16, AES128GCM16),
        integrity=(),
        key_exchange=(),
        esn=(EsnId.ESN, EsnId.NO_ESN),
    )
    return KernelRule(
        rule_id=rule_id,
        name=f"rule-{rule_id}",
        position=rule_id if position is None else position,
        action=action,
        protocol=protocol,
        local=tuple(prefix(text) for text in local),
        remote=tuple(prefix(text) for text in remote),
        local_port=local_port,
        remote_port=remote_port,
        mode=mode,
        local_address=OURS if protects else None,
        peer_address=THEIRS if protects else None,
        esp_proposals=(proposal,) if protects else (),
    )


def policy(*rules: KernelRule, generation: int = 1, interfaces: tuple[str, ...] = ()) -> SecurityPolicy:
    """A whole policy."""
    return SecurityPolicy(generation=generation, interfaces=interfaces, unmatched=Unmatched.BYPASS, rules=rules)


def selector(text: str, protocol: int = 0, ports: PortRange = ANY_PORT) -> TrafficSelector:
    """A prefix as a traffic selector."""
    network = ipaddress.ip_network(text)
    return TrafficSelector(
        protocol=protocol,
        start_address=network[0],
        end_address=network[-1],
        start_port=ports.first,
        end_port=ports.last,
    )


def sa(direction: Direction = Direction.OUT, spi: int = 0x12345678, **changes: Any) -> Sa:
    """A tunnel SA that `rule(1)` allows."""
    outward = direction is Direction.OUT
    made = Sa(
        rule_id=1,
        direction=direction,
        spi=spi,
        source=OURS if outward else THEIRS,
        destination=THEIRS if outward else OURS,
        mode=Mode.TUNNEL,
        encapsulation=None,
        cipher=AES128GCM16,
        integrity=IntegrityId.NONE,
        encryption_key=Secret(bytes(range(20))),
        integrity_key=Secret(b""),
        esn=True,
        replay_window_packets=64,
        local=(selector("10.1.0.0/24"),),
        remote=(selector("10.2.0.0/24"),),
        soft_lifetime_s=0.0,
        hard_lifetime_s=0.0,
        acquire_id=0,
    )
    return dataclasses.replace(made, **changes)


def name_of(one: Sa) -> SaName:
    """What names it."""
    return SaName(spi=one.spi, destination=one.destination)
