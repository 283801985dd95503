"""The first match wins, as in a walk through all rules."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc import messages as m
from ipc.types import Action, NextLayer, PortRange, Unmatched
from kernel_agent.userspace.packet import PacketFields
from kernel_agent.userspace.spd import PolicyReader, PolicyRefused, Spd
from tests.kernel_agent.userspace.values import make_rule

NETS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8", "fd00:1::/32", "::/0")
ADDRESSES = ("10.1.2.3", "10.1.2.4", "10.2.0.1", "192.0.2.1", "fd00:1::1", "fd00:2::1", "2001:db8::1")


def naive(rules: list[m.KernelRule], packet: PacketFields) -> m.KernelRule | None:
    """The definition."""

    def inside(prefixes: tuple[str, ...], number: int) -> bool:
        kind = ipaddress.IPv4Address if packet.version == 4 else ipaddress.IPv6Address
        nets = [ipaddress.ip_network(text) for text in prefixes]
        return any(net.version == packet.version and kind(number) in net for net in nets)

    def port_fits(ports: PortRange, port: int | None) -> bool:
        everything = ports.first == 0 and ports.last == 65535
        return everything if port is None else ports.first <= port <= ports.last

    for rule in sorted(rules, key=lambda one: one.position):
        for layer in (rule, *rule.also):
            if (
                layer.protocol in (0, packet.protocol)
                and inside(tuple(map(str, rule.local)), packet.source)
                and inside(tuple(map(str, rule.remote)), packet.destination)
                and port_fits(layer.local_port, packet.source_port)
                and port_fits(layer.remote_port, packet.destination_port)
            ):
                return rule
    return None


nets = st.lists(st.sampled_from(NETS), min_size=1, max_size=3).map(tuple)
port_ranges = st.sampled_from([PortRange(), PortRange(first=22, last=22), PortRange(first=20, last=90)])


protocols = st.sampled_from([0, 6, 17])
further = st.lists(
    st.builds(NextLayer, protocol=protocols, local_port=port_ranges, remote_port=port_ranges), max_size=2
)


@st.composite
def rule_lists(draw: st.DrawFn) -> list[m.KernelRule]:
    rules = [
        make_rule(
            number,
            position=number,
            action=draw(st.sampled_from(Action)),
            protocol=draw(protocols),
            local=draw(nets),
            remote=draw(nets),
            local_port=draw(port_ranges),
            remote_port=draw(port_ranges),
            also=tuple(draw(further)),
        )
        for number in range(1, draw(st.integers(1, 12)))
    ]
    random.Random(draw(st.integers(0, 99))).shuffle(rules)
    return rules


@st.composite
def packets(draw: st.DrawFn) -> PacketFields:
    source = ipaddress.ip_address(draw(st.sampled_from(ADDRESSES)))
    destination = ipaddress.ip_address(
        draw(st.sampled_from([text for text in ADDRESSES if ipaddress.ip_address(text).version == source.version]))
    )
    ports = st.sampled_from([22, 80, 90, 91, 65535]) if draw(st.booleans()) else st.none()
    return PacketFields(
        version=source.version,
        source=int(source),
        destination=int(destination),
        protocol=draw(st.sampled_from([1, 6, 17])),
        source_port=draw(ports),
        destination_port=draw(ports),
        fragment=False,
    )


@given(rule_lists(), packets())
def test_lookup_is_the_first_match_in_order(rules: list[m.KernelRule], packet: PacketFields) -> None:
    assert Spd(rules).lookup(packet) == naive(rules, packet)


def policy(generation: int, count: int) -> m.CommitPolicy:
    return m.CommitPolicy(generation=generation, rules=count)


def test_a_policy_is_read_whole_or_not_at_all() -> None:
    reader = PolicyReader()
    begin = m.BeginPolicy(generation=3, interfaces=(), unmatched=Unmatched.DISCARD)
    with pytest.raises(PolicyRefused):
        reader.commit(policy(3, 0))
    reader.begin(begin)
    reader.add(m.AddPolicy(generation=3, rules=(make_rule(1),)))
    with pytest.raises(PolicyRefused):
        reader.add(m.AddPolicy(generation=2, rules=(make_rule(2),)))
    with pytest.raises(PolicyRefused):
        reader.commit(policy(3, 2))
    reader.begin(begin)
    reader.add(m.AddPolicy(generation=3, rules=(make_rule(1), make_rule(2, position=1))))
    assert set(reader.commit(policy(3, 2)).rules) == {1, 2}
