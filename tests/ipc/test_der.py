"""The DER reader: known values, and that anything at all gives elements or DerError."""

import random

import pytest

from ipc import der


def test_object_identifiers_are_read_as_x690_section_8_19_says() -> None:
    # The example of X.690 section 8.19.5 is {joint-iso-itu-t 999 3}.
    assert der.object_identifier(der.read(bytes.fromhex("0603883703"))) == "2.999.3"
    assert der.object_identifier(der.read(bytes.fromhex("06092a864886f70d01010b"))) == "1.2.840.113549.1.1.11"
    assert der.object_identifier(der.read(bytes.fromhex("06032b6570"))) == "1.3.101.112"


def test_a_long_length_is_read() -> None:
    element = der.read(b"\x30\x82\x01\x00" + b"\x05\x00" * 128)
    assert len(der.children(element, der.SEQUENCE)) == 128
    assert element.encoded[:4] == b"\x30\x82\x01\x00"


@pytest.mark.parametrize(
    "data",
    [
        "",
        "30",
        "3001",
        "308000",
        "30850000000000",
        "1f0100",
        "05000500",
        "0600",
        "060181",
        "06" + "14" + "ff" * 19 + "01",
    ],
)
def test_what_is_no_der_is_refused(data: str) -> None:
    with pytest.raises(der.DerError):
        der.object_identifier(der.read(bytes.fromhex(data)))


def test_anything_at_all_gives_elements_or_der_error() -> None:
    chance = random.Random(6)
    for _ in range(5000):
        data = chance.randbytes(chance.randrange(40))
        try:
            elements = der.read_all(data)
        except der.DerError:
            continue
        assert b"".join(one.encoded for one in elements) == data
