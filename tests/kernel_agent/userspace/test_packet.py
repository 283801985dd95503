"""IP packets: what is read from them and what is built."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.userspace import packet as ip
from tests.kernel_agent.userspace.values import udp

V4 = (ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("198.51.100.2"))
V6 = (ipaddress.ip_address("2001:db8::1"), ipaddress.ip_address("2001:db8::2"))


def slow_checksum(data: bytes) -> int:
    """RFC 1071 section 4.1, word by word."""
    total = 0
    for word in struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=100) | st.integers(0, 80).map(bytes) | st.just(b"\xff" * 40))
def test_checksum_is_rfc_1071s(data: bytes) -> None:
    assert ip.checksum(data) == slow_checksum(data)


def test_checksum_of_rfc_1071s_example() -> None:
    assert ip.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    ip.flow_key(data)
    if ip.read_fields(data) is not None:
        ip.too_big(data, 1280)
        ip.with_congestion(data)
        ip.traffic_class(data)
        ip.may_be_fragmented(data)


@given(st.binary(max_size=40), st.sampled_from([0x45, 0x46, 0x60]), st.integers(0, 255))
def test_arbitrary_packets_with_a_plausible_header_never_raise(data: bytes, first: int, protocol: int) -> None:
    packet = bytes([first, *bytes(5), protocol, 0, 64, protocol]) + bytes(30) + data
    fields = ip.read_fields(packet)
    ip.flow_key(packet)
    if fields is not None:
        ip.too_big(packet, 1280)


@pytest.mark.parametrize("pair", [("10.1.0.1", "10.2.0.1"), ("fd01::1", "fd02::1")])
def test_fields_of_udp(pair: tuple[str, str]) -> None:
    fields = ip.read_fields(udp(*pair, b"hello", ports=(7, 9)))
    assert fields == ip.PacketFields(
        version=ipaddress.ip_address(pair[0]).version,
        source=int(ipaddress.ip_address(pair[0])),
        destination=int(ipaddress.ip_address(pair[1])),
        protocol=17,
        source_port=7,
        destination_port=9,
        fragment=False,
    )


def test_ports_of_later_fragments_are_not_known() -> None:
    packet = bytearray(udp("10.1.0.1", "10.2.0.1", bytes(100)))
    packet[6:8] = (0x2000).to_bytes(2)
    first = ip.read_fields(bytes(packet))
    assert first is not None
    assert first.fragment
    assert first.source_port == 5000
    packet[6:8] = (185).to_bytes(2)
    later = ip.read_fields(bytes(packet))
    assert later is not None
    assert later.fragment
    assert (later.source_port, later.destination_port) == (None, None)
    for fields, flags in ((first, 0x2000), (later, 185)):
        packet[6:8] = flags.to_bytes(2)
        assert not ip.is_flow(bytes(packet), fields)


@pytest.mark.parametrize(("offset", "port"), [(0, 5000), (8, None)])
def test_ipv6_fragment_headers_are_passed(offset: int, port: int | None) -> None:
    whole = udp("fd01::1", "fd02::1", b"x" * 20)
    header = bytes([17, 0]) + (offset << 3 | 1).to_bytes(2) + bytes(4)
    packet = whole[:4] + (len(whole) - 32).to_bytes(2) + bytes([44]) + whole[7:40] + header + whole[40:]
    fields = ip.read_fields(packet)
    assert fields is not None
    assert (fields.protocol, fields.source_port, fields.fragment) == (17, port, True)


def test_flow_keys_differ_where_selectors_or_traffic_class_do() -> None:
    packets = [
        udp("10.1.0.1", "10.2.0.1", b"a"),
        udp("10.1.0.2", "10.2.0.1", b"a"),
        udp("10.1.0.1", "10.2.0.2", b"a"),
        udp("10.1.0.1", "10.2.0.1", b"a", ports=(5001, 6000)),
        udp("10.1.0.1", "10.2.0.1", b"a", ports=(5000, 6001)),
        udp("10.1.0.1", "10.2.0.1", b"a", tos=0xB8),
        udp("fd01::1", "fd02::1", b"a"),
        udp("fd01::1", "fd02::1", b"a", tos=0xB8),
    ]
    assert len({ip.flow_key(packet) for packet in packets}) == len(packets)
    assert ip.flow_key(udp("10.1.0.1", "10.2.0.1", b"another")) == ip.flow_key(packets[0])


@pytest.mark.parametrize("pair", [V4, V6])
def test_checksums_are_made_right_after_a_nat(pair: tuple[ip.IpAddress, ip.IpAddress]) -> None:
    for protocol, offset in ((ip.UDP, 6), (ip.TCP, 16)):
        payload = bytearray(range(40))
        payload[offset : offset + 2] = b"\xde\xad"
        fixed = ip.with_checksum(*pair, protocol, bytes(payload))
        pseudo = pair[0].packed + pair[1].packed + struct.pack("!II", len(fixed), protocol)
        assert slow_checksum(pseudo + fixed) == 0


def test_udp_without_checksum_stays_without() -> None:
    payload = bytes(20)
    assert ip.with_checksum(*V4, ip.UDP, payload) == payload


@pytest.mark.parametrize("pair", [("10.1.0.1", "10.2.0.1"), ("fd01::1", "fd02::1")])
def test_too_big_tells_the_sender(pair: tuple[str, str]) -> None:
    packet = udp(*pair, bytes(1400))
    error = ip.too_big(packet, 1300)
    assert error is not None
    fields = ip.read_fields(error)
    assert fields is not None
    assert fields.source == int(ipaddress.ip_address(pair[1]))
    assert fields.destination == int(ipaddress.ip_address(pair[0]))
    if fields.version == 4:
        assert slow_checksum(error[:20]) == 0
        assert slow_checksum(error[20:]) == 0
        assert error[20:28] == bytes([3, 4]) + error[22:24] + bytes(2) + (1300).to_bytes(2)
        assert len(error) <= 576
        assert packet.startswith(error[28:])
    else:
        assert slow_checksum(error[8:40] + struct.pack("!II", len(error) - 40, 58) + error[40:]) == 0
        assert error[40:42] == bytes([2, 0])
        assert error[44:48] == (1300).to_bytes(4)
        assert len(error) <= 1280
    assert ip.too_big(error, 100) is None


@given(st.binary(min_size=48, max_size=60), st.sampled_from([0x45, 0x46, 0x60, 0x6A]), st.sampled_from([1, 6, 17, 44]))
def test_packets_with_the_key_of_a_flow_have_its_fields(data: bytes, first: int, protocol: int) -> None:
    changed = bytearray(data)
    changed[0] = first
    changed[6 if first >= 0x60 else 9] = protocol
    packet = bytes(changed)
    fields = ip.read_fields(packet)
    if fields is None or not ip.is_flow(packet, fields):
        return
    for index in range(len(packet)):
        changed = bytearray(packet)
        changed[index] ^= 0x24
        other = bytes(changed)
        if ip.flow_key(other) == ip.flow_key(packet):
            assert ip.read_fields(other) == fields
            assert ip.traffic_class(other) == ip.traffic_class(packet)


@pytest.mark.parametrize("pair", [("10.1.0.1", "10.2.0.1"), ("fd01::1", "fd02::1")])
def test_congestion_is_carried_inwards(pair: tuple[str, str]) -> None:
    marked = ip.with_congestion(udp(*pair, b"x", tos=0xB9))
    assert marked is not None
    assert ip.traffic_class(marked) == 0xBB
    if marked[0] >> 4 == 4:
        assert slow_checksum(marked[:20]) == 0
    assert ip.with_congestion(udp(*pair, b"x", tos=0xB8)) is None
