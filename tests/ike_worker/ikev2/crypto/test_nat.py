import hashlib
import ipaddress

from ike_worker.ikev2.crypto.nat import nat_detection_hash

SPI_I, SPI_R = bytes(range(8)), bytes(range(8, 16))


def test_the_hash_covers_spis_address_and_port_in_network_order() -> None:
    address = ipaddress.ip_address("192.0.2.1").packed
    expected = hashlib.sha1(bytes(range(16)) + b"\xc0\x00\x02\x01" + b"\x01\xf4").digest()
    assert nat_detection_hash(SPI_I, SPI_R, address, 500) == expected


def test_an_ipv6_address_has_16_bytes_in_it() -> None:
    address = ipaddress.ip_address("2001:db8::1").packed
    expected = hashlib.sha1(bytes(range(16)) + address + b"\x11\x94").digest()
    assert nat_detection_hash(SPI_I, SPI_R, address, 4500) == expected
