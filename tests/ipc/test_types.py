"""Secrets stay secret; values print as people write them."""

import copy
import ipaddress
import logging
import traceback

import pytest

from ipc import messages as m
from ipc.codec import decode, encode
from ipc.types import Identity, IdType, PortRange, Prefix, Secret, TrafficSelector

TEXT = b"correct horse battery staple"


def shown(message: object) -> list[str]:
    """All the ways in which a value gets into a log."""
    return [repr(message), str(message), f"{message}", "%r %s" % (message, message), ascii(message)]  # noqa: UP031


def test_no_repr_shows_a_secret() -> None:
    parse = m.ParsePolicy(generation=1, path="/etc/ipsec.spd", content=Secret(TEXT), mode=0o600, uid=0)
    for text in [*shown(Secret(TEXT)), *shown(parse), *shown(decode(encode(parse)))]:
        assert "horse" not in text
        assert TEXT.hex() not in text


def test_no_traceback_or_log_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(Secret(TEXT))
    except ValueError:
        logging.getLogger("ipc").exception("it failed with %s", Secret(TEXT))
        assert "horse" not in traceback.format_exc()
    assert "28 bytes" in caplog.text
    assert "horse" not in caplog.text


def test_a_secret_is_equal_to_the_same_secret_only() -> None:
    assert Secret(TEXT) == Secret(bytes(TEXT))
    assert Secret(TEXT) != Secret(TEXT + b".")
    assert Secret(TEXT) != TEXT
    assert not Secret(b"")
    assert copy.copy(Secret(TEXT)).reveal() == TEXT


def test_a_secret_is_no_key_of_a_dict() -> None:
    with pytest.raises(TypeError):
        hash(Secret(TEXT))
    with pytest.raises(AttributeError):
        Secret(TEXT).label = "x"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Identity(type=IdType.IPV4_ADDR, data=bytes([10, 0, 0, 1])), "10.0.0.1"),
        (Identity(type=IdType.FQDN, data=b"left.example"), "left.example"),
        (Identity(type=IdType.FQDN, data=b"left\xff"), "left\\xff"),
        (Identity(type=IdType.KEY_ID, data=b"\x00\x01"), "0001"),
        (Prefix(address=ipaddress.ip_address("10.1.0.0"), length=16), "10.1.0.0/16"),
        (PortRange(), "any"),
        (PortRange(first=22, last=22), "22"),
        (PortRange(first=1, last=9), "1-9"),
    ],
)
def test_values_print_as_people_write_them(value: object, text: str) -> None:
    assert str(value) == text


def test_a_selector_says_only_what_it_restricts() -> None:
    start, end = ipaddress.ip_address("10.1.0.0"), ipaddress.ip_address("10.1.0.255")
    all_of_it = TrafficSelector(protocol=0, start_address=start, end_address=end, start_port=0, end_port=65535)
    one_port = TrafficSelector(protocol=6, start_address=start, end_address=start, start_port=22, end_port=22)
    assert str(all_of_it) == "10.1.0.0-10.1.0.255"
    assert str(one_port) == "10.1.0.0 proto 6 port 22-22"
