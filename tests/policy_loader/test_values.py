"""Single values: what is taken, and that what is not is refused with a sentence."""

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.types import Identity, IdType, PortRange, Prefix
from policy_loader import values


@settings(deadline=None, derandomize=True)
@given(st.one_of(st.ip_addresses(), st.ip_addresses(network="10.0.0.0/8")), st.integers(0, 128))
def test_a_prefix_is_what_the_standard_library_says(address: IPv4Address | IPv6Address, length: int) -> None:
    length = min(length, address.max_prefixlen)
    network = ip_network((address, length), strict=False)
    assert values.parse_prefix(str(network)) == Prefix(address=network.network_address, length=length)
    assert values.parse_prefix(str(address)) == Prefix(address=address, length=address.max_prefixlen)
    if network.network_address != address:
        with pytest.raises(ValueError, match=f'write "{network}"'):
            values.parse_prefix(f"{address}/{length}")


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
