"""The capture tells IKE and ESP from what is in clear: every other system test relies on it."""

import struct
from pathlib import Path

import pytest

from tests.lab.capture import Capture, Kind, classify
from tests.lab.namespaces import LabError, Namespace, assert_not_initial_namespace, gateways
from tests.lab.ping import RunningPing, ping
from tests.lab.waiting import wait_until

ETHERNET_V4 = bytes(12) + b"\x08\x00"
ETHERNET_V6 = bytes(12) + b"\x86\xdd"


def ipv4(protocol: int, payload: bytes) -> bytes:
    """A frame with an IPv4 packet from 10.9.0.1 to 10.9.0.2."""
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, b"\x0a\x09\0\x01", b"\x0a\x09\0\x02"
    )
    return ETHERNET_V4 + header + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    """A frame with an IPv6 packet."""
    return ETHERNET_V6 + struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255) + bytes(32) + payload


def udp(source: int, destination: int, body: bytes) -> bytes:
    """A UDP datagram."""
    return struct.pack("!HHHH", source, destination, 8 + len(body), 0) + body


IKE = struct.pack("!8s8sBBBBII", b"i" * 8, b"r" * 8, 46, 0x20, 37, 0x28, 7, 32) + b"body"
ESP = struct.pack("!II", 0x11223344, 1) + bytes(40)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        pytest.param(ipv4(17, udp(500, 500, IKE)), Kind.IKE, id="IKE"),
        pytest.param(ipv4(17, udp(4500, 4500, bytes(4) + IKE)), Kind.IKE, id="IKE on 4500"),
        pytest.param(ipv4(17, udp(4500, 1024, bytes(4) + IKE)), Kind.IKE, id="IKE through a NAT"),
        pytest.param(ipv6(17, udp(500, 500, IKE)), Kind.IKE, id="IKE over IPv6"),
        pytest.param(ipv4(17, udp(500, 500, IKE + b"tail")), Kind.CLEAR, id="longer than its length"),
        pytest.param(ipv4(17, udp(500, 500, b"hello")), Kind.CLEAR, id="no IKE on 500"),
        pytest.param(ipv4(17, udp(4500, 4500, ESP)), Kind.ESP_IN_UDP, id="ESP in UDP"),
        pytest.param(ipv4(17, udp(4500, 4500, b"\xff")), Kind.KEEPALIVE, id="keepalive"),
        pytest.param(ipv4(17, udp(4500, 4500, bytes(4) + b"hello")), Kind.CLEAR, id="marker and no IKE"),
        pytest.param(ipv4(50, ESP), Kind.ESP, id="ESP"),
        pytest.param(ipv6(50, ESP), Kind.ESP, id="ESP over IPv6"),
        pytest.param(ipv4(50, b"\x01"), Kind.CLEAR, id="ESP cut short"),
        pytest.param(ipv4(1, b"\x08\0\0\0\0\0\0\0"), Kind.CLEAR, id="ping"),
        pytest.param(ipv4(6, bytes(20)), Kind.CLEAR, id="TCP"),
        pytest.param(ipv4(17, udp(53, 53, IKE)), Kind.CLEAR, id="IKE on another port"),
        pytest.param(ipv6(58, b"\x87\0\0\0"), Kind.NEIGHBOUR, id="neighbour solicitation"),
        pytest.param(ipv6(58, b"\x80\0\0\0"), Kind.CLEAR, id="ping over IPv6"),
        pytest.param(bytes(12) + b"\x08\x06" + bytes(28), Kind.NEIGHBOUR, id="ARP"),
        pytest.param(bytes(12) + b"\x88\xcc" + bytes(28), Kind.CLEAR, id="another ethertype"),
        pytest.param(ETHERNET_V4 + b"\x45", Kind.CLEAR, id="IPv4 cut short"),
        pytest.param(b"", Kind.CLEAR, id="nothing"),
        pytest.param(
            ipv4(1, b"\x03\x03" + bytes(6) + ipv4(17, udp(500, 500, IKE))[14:]), Kind.ERROR, id="error about IKE"
        ),
        pytest.param(
            ipv4(1, b"\x03\x03" + bytes(6) + ipv4(17, udp(53, 53, b"x"))[14:]), Kind.CLEAR, id="error about others"
        ),
    ],
)
def test_frames_are_told_apart(frame: bytes, kind: Kind) -> None:
    assert classify(frame).kind is kind


def test_an_ike_header_is_read() -> None:
    header = classify(ipv4(17, udp(500, 500, IKE))).ike
    assert header is not None
    assert (header.spi_i, header.spi_r, header.message_id, header.response) == (b"i" * 8, b"r" * 8, 7, True)
    assert str(header) == "INFORMATIONAL response 7"


@pytest.mark.root
def test_what_is_in_clear_on_a_real_wire_is_seen(tmp_path: Path) -> None:
    with gateways() as wire, Capture(wire) as capture:
        assert ping(wire.left, "10.2.0.1", source="10.1.0.1", count=5, interval_s=0.01).lost == 0
        assert ping(wire.left, "fd02::1", source="fd01::1", count=1, wait_s=3.0).lost == 0
        capture.stop()
        assert [frame.sender for frame in capture.of_kind(Kind.CLEAR)] == ["left", "right"] * 6
        with pytest.raises(AssertionError, match="12 frames in clear"):
            capture.assert_nothing_clear()
        capture.write_pcap(tmp_path / "wire.pcap")
        assert (tmp_path / "wire.pcap").stat().st_size > 24 + 12 * (16 + 98)


@pytest.mark.root
def test_the_initial_namespace_is_refused() -> None:
    with pytest.raises(LabError, match="initial"):
        assert_not_initial_namespace()
    with Namespace("own") as own:
        assert own.call(lambda: assert_not_initial_namespace()) is None
        path = own.path
    assert not path.exists()


@pytest.mark.root
def test_a_namespace_goes_with_its_processes_even_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), Namespace("own") as own:
        own.run("sh", "-c", "sleep 60 >/dev/null 2>&1 &")
        assert own.pids()
        path, pids = own.path, own.pids
        raise ZeroDivisionError
    assert not path.exists()
    assert pids() == []


@pytest.mark.root
def test_pings_are_counted_and_a_late_answer_is_no_loss() -> None:
    with gateways() as wire:
        wire.right.run("sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=8")
        late = RunningPing(wire.left, "10.9.0.2", count=3, interval_s=0.01, wait_s=20.0)
        wait_until("ARP has been asked in vain", lambda: "INCOMPLETE" in wire.left.ip("neighbour"))
        wire.right.run("sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=0")
        result = late.finish()
        assert result.lost == 0 and result.longest_s > 0.2
        assert ping(wire.left, "10.9.0.2", count=3, interval_s=0.01, size=1200).lost == 0
        assert ping(wire.left, "fd09::2", count=3, interval_s=0.01).lost == 0
        assert ping(wire.left, "10.9.0.9", count=2, interval_s=0.01, wait_s=0.2).received == 0
        with pytest.raises(LabError, match="assign"):
            ping(wire.left, "10.9.0.2", source="192.0.2.1")
