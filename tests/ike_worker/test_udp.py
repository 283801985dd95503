"""The IKE sockets, over a veth pair between two namespaces."""

import os
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from ike_worker.ikev2.engine import Endpoint
from ike_worker.udp import NAT_KEEPALIVE, NON_ESP_MARKER, RoutingProbe, UdpSockets
from ipc.types import IpAddress
from tests.lab.namespaces import Gateways, Namespace, gateways
from tests.lab.waiting import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root"),
]
LEFT, RIGHT = ip_address("10.9.0.1"), ip_address("10.9.0.2")
LEFT6, RIGHT6 = ip_address("fd09::1"), ip_address("fd09::2")


@pytest.fixture
def wire() -> Iterator[Gateways]:
    with gateways() as made:
        yield made


def ike_socket(namespace: Namespace, version: int, port: int) -> int:
    """A wildcard socket as the supervisor hands it over."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.setblocking(False)
        if version == 4:
            made.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(("", port))
        return made

    return namespace.call(make).detach()


def let_all_in(_data: bytes, _address: bytes) -> bytes | None:
    return None


@pytest.mark.parametrize(("left", "right"), [pytest.param(LEFT, RIGHT, id="v4"), pytest.param(LEFT6, RIGHT6, id="v6")])
@pytest.mark.parametrize("port", [500, 4500])
def test_a_datagram_arrives_with_both_its_addresses(
    wire: Gateways, left: IpAddress, right: IpAddress, port: int
) -> None:
    name = f"udp{port}-v{left.version}"
    ours = UdpSockets({name: ike_socket(wire.left, left.version, port)})
    theirs = UdpSockets({name: ike_socket(wire.right, left.version, port)})
    got = list[tuple[bytes, Endpoint, Endpoint]]()
    ((descriptor, drain),) = theirs.readers(lambda *datagram: got.append(datagram), let_all_in).items()
    source, target = Endpoint(address=left, port=port), Endpoint(address=right, port=port)
    ours.send(source, target, b"an IKE message")
    select.select([descriptor], [], [], 5.0)  # IPv6 finds its neighbour first
    drain()
    assert got == [(b"an IKE message", target, source)]
    assert (ours.dropped, theirs.dropped) == (0, 0)
    ours.close()
    theirs.close()


def test_on_4500_only_what_stands_behind_the_marker_is_ike(wire: Gateways) -> None:
    theirs = UdpSockets({"udp4500-v4": ike_socket(wire.right, 4, 4500)})
    got = list[bytes]()
    (drain,) = theirs.readers(lambda data, _local, _remote: got.append(data), let_all_in).values()
    with wire.left.udp_socket("10.9.0.1", 4500) as sender:
        for data in (NAT_KEEPALIVE, b"\x00\x00\x01\x00 ESP", b"", NON_ESP_MARKER + b"IKE", b"", b"\0\0"):
            sender.sendto(data, ("10.9.0.2", 4500))
    drain()
    assert got == [b"IKE"]
    assert theirs.dropped == 5
    theirs.close()


@pytest.mark.parametrize(("left", "right"), [pytest.param(LEFT, RIGHT, id="v4"), pytest.param(LEFT6, RIGHT6, id="v6")])
@pytest.mark.parametrize("port", [500, 4500])
def test_what_is_screened_is_answered_from_where_it_came_to_or_dropped(
    wire: Gateways, left: IpAddress, right: IpAddress, port: int
) -> None:
    second = ip_address("10.2.0.1") if right.version == 4 else ip_address("fd02::1")  # another address of the right
    theirs = UdpSockets({f"udp{port}-v{right.version}": ike_socket(wire.right, right.version, port)})
    seen = list[bytes]()

    def screen(data: bytes, address: bytes) -> bytes | None:
        seen.append(address)
        return {b"rubbish": b"", b"prove it": b"cookie"}.get(data)

    got = list[bytes]()
    ((descriptor, drain),) = theirs.readers(lambda data, _local, _remote: got.append(data), screen).items()
    marker = NON_ESP_MARKER if port == 4500 else b""
    with wire.left.udp_socket(str(left), 4501) as sender:
        sender.settimeout(10.0)
        for data in (b"rubbish", b"prove it", b"welcome"):
            sender.sendto(marker + data, (str(second), port))
        wait_until(
            "all three are there",
            lambda: bool(select.select([descriptor], [], [], 0.1)[0]) and not drain() and len(seen) == 3,
        )
        answer, source = sender.recvfrom(100)
    assert (answer, source[:2]) == (marker + b"cookie", (str(second), port))
    assert got == [b"welcome"]
    assert set(seen) == {left.packed}
    assert theirs.dropped == 1
    theirs.close()


def test_the_address_that_routing_would_use_is_found_and_the_socket_is_free_again(wire: Gateways) -> None:
    wire.left.ip("address", "add", "10.77.0.1/24", "dev", "lo")
    wire.left.ip("route", "add", "10.66.0.0/16", "via", "10.9.0.2", "src", "10.77.0.1")

    def unbound(family: socket.AddressFamily) -> int:
        return wire.left.call(lambda: socket.socket(family, socket.SOCK_DGRAM)).detach()

    descriptors = {"route-v4": unbound(socket.AF_INET), "route-v6": unbound(socket.AF_INET6)}
    probe = RoutingProbe(descriptors)
    # One after the other on the same socket: nothing of the first stays.
    assert probe.source_address(ip_address("10.66.3.4")) == ip_address("10.77.0.1")
    assert probe.source_address(RIGHT) == LEFT
    assert probe.source_address(ip_address("203.0.113.5")) is None
    assert probe.source_address(RIGHT6) == LEFT6
    assert RoutingProbe({}).source_address(RIGHT) is None
    for descriptor in descriptors.values():
        with socket.socket(fileno=os.dup(descriptor)) as sock, pytest.raises(OSError, match="not connected"):
            sock.getpeername()
    probe.close()
