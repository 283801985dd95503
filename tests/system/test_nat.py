"""Tunnels through real NATs: nftables masquerading in namespaces. RFC 7296 section 2.23, RFC 3948."""

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.capture import Capture, Kind
from tests.lab.instance import Instance
from tests.lab.namespaces import Namespace
from tests.lab.nat import FIRST_PORTS, LEFT, LEFT_PUBLIC, OTHER_PORTS, RIGHT, NattedWire, natted
from tests.lab.ping import RunningPing, ping
from tests.lab.streams import bytes_through_tcp, datagram_arrives
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(150)]
LEFT_INNER, RIGHT_INNER = "10.1.0.1", "10.2.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Natted:
    """Two started instances with NATs between them."""

    wire: NattedWire
    left: Instance
    right: Instance
    capture: Capture


@contextlib.contextmanager
def through_nat(*, both: bool = False, transport: bool = False) -> Iterator[Natted]:
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(natted(both=both, transport=transport))
        capture = stack.enter_context(Capture(wire.gateways))
        left, right = (stack.enter_context(Instance(one)) for one in (wire.gateways.left, wire.gateways.right))
        try:
            right.start(wire.right_pair.right_spd())
            left.start(wire.left_pair.left_spd())
            yield Natted(wire=wire, left=left, right=right, capture=capture)
        except BaseException:
            for instance in (left, right):
                print(f"--- log of {instance.namespace} ---\n{instance.log()[-6000:]}", file=sys.stderr)
            raise


def comes_up(namespace: Namespace, destination: str, source: str) -> None:
    """Pings until there is a tunnel, then twenty times without loss."""
    wait_until(
        f"{destination} answers {source}",
        lambda: ping(namespace, destination, source=source, wait_s=1.0).received == 1,
        timeout_s=20.0,
    )
    assert ping(namespace, destination, source=source, count=20, interval_s=0.02).lost == 0


def peer_port(instance: Instance, address: str) -> int:
    """The port that the peer has, for this instance; 0 if it is not at that address."""
    found = [re.fullmatch(rf"{re.escape(address)}:(\d+)", one["remote"]) for one in instance.status()["tunnels"]]
    return next((int(one[1]) for one in found if one is not None), 0)


def only_udp(natted: Natted) -> None:
    """Nothing was in clear, and no ESP but in UDP: a NAT of this kind could not carry it."""
    natted.capture.stop()
    natted.capture.assert_nothing_clear()
    assert natted.capture.of_kind(Kind.ESP_IN_UDP)
    assert not natted.capture.of_kind(Kind.ESP)


def check_that_a_changed_mapping_is_followed(natted: Natted) -> None:
    """Under traffic; the IKE SA stays."""
    left, right = natted.wire.gateways.left, natted.wire.gateways.right
    comes_up(left, RIGHT_INNER, LEFT_INNER)
    assert ping(right, LEFT_INNER, source=RIGHT_INNER, count=20, interval_s=0.02).lost == 0
    assert peer_port(natted.right, LEFT_PUBLIC) in FIRST_PORTS
    before = natted.right.wait_for_tunnel()

    pings = RunningPing(left, RIGHT_INNER, source=LEFT_INNER, count=200, interval_s=0.02)
    natted.wire.left_nat.masquerade(OTHER_PORTS)
    natted.wire.left_nat.forget_mappings()

    def has_followed() -> bool:
        ping(left, RIGHT_INNER, source=LEFT_INNER, wait_s=0.5)  # however slow the machine, there is traffic
        return peer_port(natted.right, LEFT_PUBLIC) in OTHER_PORTS

    wait_until("the right side has followed", has_followed, timeout_s=30.0)
    result = pings.finish()
    assert result.received > 0, result
    # What goes back reaches the new mapping, and the IKE SA is the same.
    assert ping(right, LEFT_INNER, source=RIGHT_INNER, count=20, interval_s=0.02).lost == 0
    comes_up(left, RIGHT_INNER, LEFT_INNER)
    assert natted.right.wait_for_tunnel().spi_i == before.spi_i


def test_an_initiator_behind_a_nat_whose_mapping_changes_under_traffic() -> None:
    with through_nat() as natted:
        check_that_a_changed_mapping_is_followed(natted)
        only_udp(natted)


def test_both_behind_nats() -> None:
    with through_nat(both=True) as natted:
        left, right = natted.wire.gateways.left, natted.wire.gateways.right
        comes_up(left, RIGHT_INNER, LEFT_INNER)
        assert ping(right, LEFT_INNER, source=RIGHT_INNER, count=20, interval_s=0.02).lost == 0
        assert bytes_through_tcp(left, LEFT_INNER, right, RIGHT_INNER, 500_000) == 500_000
        assert peer_port(natted.right, LEFT_PUBLIC) in FIRST_PORTS
        only_udp(natted)


def test_transport_mode_behind_a_nat() -> None:
    """RFC 7296 section 2.23.1: the addresses inside are not those that the checksums were made over."""
    with through_nat(transport=True) as natted:
        left, right = natted.wire.gateways.left, natted.wire.gateways.right
        comes_up(left, RIGHT, LEFT)
        (child,) = natted.right.status()["tunnels"][0]["children"]
        assert child["mode"] == "transport"
        assert bytes_through_tcp(left, LEFT, right, RIGHT, 500_000) == 500_000
        assert datagram_arrives(left, LEFT, right, RIGHT, 9000, wait_s=10.0)
        assert ping(right, LEFT_PUBLIC, source=RIGHT, count=20, interval_s=0.02).lost == 0
        only_udp(natted)
