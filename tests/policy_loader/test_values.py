"""Single values: what is taken, and that what is not is refused with a sentence."""

from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest

from ipc.types import Identity, IdType, PortRange
from policy_loader import values
from policy_loader.values import HostName, IcmpType


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("192.0.2.1", Identity(type=IdType.IPV4_ADDR, data=bytes((192, 0, 2, 1)))),
        ("2001:db8::1", Identity(type=IdType.IPV6_ADDR, data=IPv6Address("2001:db8::1").packed)),
        ("hq.example.net", Identity(type=IdType.FQDN, data=b"hq.example.net")),
        ("hq", Identity(type=IdType.FQDN, data=b"hq")),
        ("admin@example.net", Identity(type=IdType.RFC822_ADDR, data=b"admin@example.net")),
        ("keyid:00fF", Identity(type=IdType.KEY_ID, data=b"\x00\xff")),
    ],
)
def test_the_type_of_an_identity_follows_from_its_look(text: str, identity: Identity) -> None:
    assert values.parse_identity(text) == identity


@pytest.mark.parametrize(
    "text", ["", "@hq", "a b", "10.0.0.300", "keyid:", "keyid:0", "fe80::1%eth0", "é.example", "a@", 3]
)
def test_what_is_no_identity_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"identity|keyid|text in quotes"):
        values.parse_identity(text)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(30, 30.0), (0, 0.0), (1.5, 1.5), ("30s", 30.0), ("5m", 300.0), ("8h", 28800.0), ("2d", 172800.0), ("0s", 0.0)],
)
def test_durations(value: Any, seconds: float) -> None:
    assert values.parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value", [-1, True, "30", "1w", "1.5h", "", float("nan"), float("inf"), "366d", 10**400, "٣s", [30], None]
)
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="write seconds"):
        values.parse_duration(value)


@pytest.mark.parametrize(("value", "first", "last"), [(22, 22, 22), ("22", 22, 22), ("0-65535", 0, 65535), (0, 0, 0)])
def test_ports(value: Any, first: int, last: int) -> None:
    assert values.parse_ports(value) == PortRange(first=first, last=last)


@pytest.mark.parametrize("value", [-1, 65536, True, "2-1", "a", "1-", "1-2-3", 10**400, 1.0])
def test_what_is_no_port_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="write a port"):
        values.parse_ports(value)


@pytest.mark.parametrize("value", ["::ffff:192.0.2.1", "fe80::1%eth0", "0.0.0.0", "::", "255.255.255.255", "224.0.0.1"])
def test_what_is_no_address_of_one_host_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"plain address|not the address of one host"):
        values.parse_address(value)


def test_a_psk_is_bytes_and_its_refusal_does_not_quote_it() -> None:
    assert values.parse_psk("pä").reveal() == b"p\xc3\xa4"
    with pytest.raises(ValueError, match="longer than") as caught:
        values.parse_psk("never shown " * 1000)
    assert "never shown" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("192.0.2.1", ip_address("192.0.2.1")),
        ("2001:db8::1", ip_address("2001:db8::1")),
        ("branch.example.net", HostName("branch.example.net")),
        ("any", None),
    ],
)
def test_a_peer_is_at_an_address_at_a_host_or_anywhere(value: str, address: object) -> None:
    found = values.parse_peer_address(value)
    assert (type(found), found) == (type(address), address)


@pytest.mark.parametrize("value", ["192.0.2.256", "10.1", "a b", "", "-x", 3])
def test_what_is_neither_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"no IPv4 or IPv6 address|text in quotes"):
        values.parse_peer_address(value)


def ports(first: int, last: int) -> PortRange:
    return PortRange(first=first, last=last)


@pytest.mark.parametrize(
    ("value", "v4", "v6"),
    [
        ("echo-request", ports(0x0800, 0x08FF), ports(0x8000, 0x80FF)),
        ("packet-too-big", None, ports(0x0200, 0x02FF)),
        (3, ports(0x0300, 0x03FF), ports(0x0300, 0x03FF)),
        ("3", ports(0x0300, 0x03FF), ports(0x0300, 0x03FF)),
        ("3/1", ports(0x0301, 0x0301), ports(0x0301, 0x0301)),
        ("255/255", ports(0xFFFF, 0xFFFF), ports(0xFFFF, 0xFFFF)),
    ],
)
def test_an_icmp_type_is_its_number_times_256_and_the_code(value: Any, v4: PortRange, v6: PortRange) -> None:
    assert values.parse_icmp_type(value) == IcmpType(v4=v4, v6=v6)


@pytest.mark.parametrize("value", [-1, 256, True, "3/256", "256/1", "3/", "echo", 1.0, []])
def test_what_is_no_icmp_type_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="ICMP type"):
        values.parse_icmp_type(value)


@pytest.mark.parametrize(
    ("value", "size"), [(0, 0), (1500, 1500), ("1kB", 1000), ("1GB", 10**9), ("4GiB", 1 << 32), ("2TB", 2 * 10**12)]
)
def test_sizes(value: Any, size: int) -> None:
    assert values.parse_size(value) == size


@pytest.mark.parametrize("value", [-1, True, 1.0, "1", "1 GB", "1gb", "1.5GB", 10**19, "999999999999TB", None])
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="write bytes"):
        values.parse_size(value)


@pytest.mark.parametrize("value", [-1, True, "1000", 10**19])
def test_what_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="number of packets"):
        values.parse_count(value)


@pytest.mark.parametrize(("value", "spi"), [(256, 256), (0x1000, 0x1000), ("0x100", 256), ("0xFFFFFFFF", 0xFFFFFFFF)])
def test_spis(value: Any, spi: int) -> None:
    assert values.parse_spi(value) == spi


@pytest.mark.parametrize("value", [0, 255, 1 << 32, True, "256", "0xff", "0x100000000", "0x"])
def test_what_is_no_spi_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="write an SPI"):
        values.parse_spi(value)


def test_a_key_is_hex_and_its_refusal_does_not_quote_it() -> None:
    assert values.parse_key("0x00fF").reveal() == values.check_key(b"00ff\n").reveal() == b"\x00\xff"
    for wrong in ("c0ffee0", "never shown"):
        with pytest.raises(ValueError, match="hex digits") as caught:
            values.parse_key(wrong)
        assert wrong not in str(caught.value)
