"""RFC 7296 section 3.13, byte by byte."""

import ipaddress

import pytest

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.wire.reader import Reader
from ike_worker.ikev2.wire.traffic_selectors import TrafficSelectorsInitiator, TrafficSelectorsResponder
from ipc.types import TrafficSelector


def selector(start: str, end: str, protocol: int = 0, ports: tuple[int, int] = (0, 65535)) -> TrafficSelector:
    return TrafficSelector(
        protocol=protocol,
        start_address=ipaddress.ip_address(start),
        end_address=ipaddress.ip_address(end),
        start_port=ports[0],
        end_port=ports[1],
    )


BOTH_FAMILIES = TrafficSelectorsInitiator(
    selectors=(
        selector("10.1.0.0", "10.1.255.255"),
        selector("2001:db8::", "2001:db8::ff", protocol=6, ports=(443, 443)),
    )
)
BOTH_FAMILIES_BYTES = bytes.fromhex(
    "02 000000"
    "07 00 0010 0000 ffff 0a010000 0a01ffff"
    "08 06 0028 01bb 01bb 20010db8000000000000000000000000 20010db80000000000000000000000ff"
)
IPV4 = "07 00 0010 0000 ffff 0a010000 0a01ffff"


def parse(text: str | bytes) -> TrafficSelectorsInitiator:
    reader = Reader(text if isinstance(text, bytes) else bytes.fromhex(text), "TS")
    payload = TrafficSelectorsInitiator.parse_body(reader)
    reader.expect_end()
    return payload


def test_it_encodes_as_the_rfc_draws_it() -> None:
    assert BOTH_FAMILIES.encode_body() == BOTH_FAMILIES_BYTES


def test_it_parses_what_the_rfc_draws() -> None:
    assert parse(BOTH_FAMILIES_BYTES) == BOTH_FAMILIES


def test_initiator_and_responder_are_not_the_same() -> None:
    responder: object = TrafficSelectorsResponder(selectors=BOTH_FAMILIES.selectors)
    assert responder != BOTH_FAMILIES
    assert (TrafficSelectorsInitiator.TYPE, TrafficSelectorsResponder.TYPE) == (44, 45)


@pytest.mark.parametrize("end", range(len(BOTH_FAMILIES_BYTES)))
def test_cut_off_anywhere_it_is_malformed(end: int) -> None:
    with pytest.raises(MalformedMessage):
        parse(BOTH_FAMILIES_BYTES[:end])


def test_a_selector_of_unknown_type_is_skipped() -> None:
    assert parse(f"02 000000 09 00 0006 beef {IPV4}").selectors == (selector("10.1.0.0", "10.1.255.255"),)


def test_only_selectors_of_unknown_type_leave_none() -> None:
    assert parse("01 000000 09 00 0004").selectors == ()


def test_there_may_be_no_selectors() -> None:
    """They are nothing to agree on, which is told better than a malformed message."""
    assert parse("00 000000").selectors == ()


@pytest.mark.parametrize("length", ["0000", "0003", "000f", "0011", "0028"])
def test_a_length_that_does_not_fit_is_malformed(length: str) -> None:
    with pytest.raises(MalformedMessage):
        parse(f"01 000000 07 00 {length} 0000 ffff 0a010000 0a01ffff")


def test_bytes_behind_the_addresses_of_a_selector_are_malformed() -> None:
    with pytest.raises(MalformedMessage, match="traffic selector: 1 bytes left over"):
        parse("01 000000 07 00 0011 0000 ffff 0a010000 0a01ffff 00")


def test_an_unknown_selector_of_no_length_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        parse("ff 000000 09 00 0000")


def test_more_selectors_than_counted_are_malformed() -> None:
    with pytest.raises(MalformedMessage):
        parse(f"01 000000 {IPV4} {IPV4}")


def test_a_range_of_addresses_upside_down_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="addresses"):
        parse("01 000000 07 00 0010 0000 ffff 0a010001 0a010000")


def test_a_range_of_ports_upside_down_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="ports"):
        parse("01 000000 07 11 0010 0002 0001 0a010000 0a010000")


def test_opaque_ports_are_kept() -> None:
    """RFC 7296 section 3.13.1: OPAQUE is start 65535, end 0."""
    (opaque,) = parse("01 000000 07 11 0010 ffff 0000 0a010000 0a010000").selectors
    assert (opaque.start_port, opaque.end_port) == (65535, 0)
