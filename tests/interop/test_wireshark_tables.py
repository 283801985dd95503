"""Every algorithm for which we write a line of Wireshark's tables is one that it decrypts; every other one is named.

Nothing runs here but tshark: the packets are sealed by the code that seals them in the product, under known keys.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ike_worker.ikev2.crypto.protection import MessageProtection
from ike_worker.ikev2.iana import ExchangeType
from ike_worker.ikev2.wire.message import seal_message
from ike_worker.ikev2.wire.notify import Notify
from ipc.algorithms import (
    CIPHER_NAMES,
    INTEGRITY_KEY_BYTES,
    Cipher,
    EncryptionId,
    IntegrityId,
    cipher_name,
    cipher_sizes,
)
from ipc.types import Secret
from ipc.wishes import EspSaKeys, IkeSaKeys
from ipsecctl.wireshark import ESP_TABLE, IKE_TABLE, esp_line, ike_line, unreadable
from kernel_agent.userspace import esp
from tests.kernel_agent.userspace.values import make_sa
from tests.lab.debian import Unavailable
from tests.lab.tshark import Tshark

pytestmark = pytest.mark.interop
SOURCE, DESTINATION = ip_address("192.0.2.1"), ip_address("198.51.100.2")
ICMP_ECHO = bytes.fromhex("0800f7fd00010001")
INNER = (
    struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_ICMP, 0)
    + ip_address("10.1.0.1").packed
    + ip_address("10.2.0.1").packed
    + ICMP_ECHO
)
MARK = 40961
"""A private notify type (RFC 7296 section 3.10.1), by which a decrypted message is known."""
NOT_IN_IKE = {"chacha20poly1305"}
NOT_IN_ESP = {"chacha20poly1305", *(name for name in CIPHER_NAMES if "ccm" in name)}


def suites() -> Iterator[tuple[Cipher, IntegrityId]]:
    """Every cipher, those without a tag of their own with every integrity."""
    for cipher in CIPHER_NAMES.values():
        if cipher_sizes(cipher).aead:
            yield cipher, IntegrityId.NONE
        else:
            yield from ((cipher, one) for one in IntegrityId if one is not IntegrityId.NONE)


def key(cipher: Cipher) -> Secret:
    sizes = cipher_sizes(cipher)
    return Secret(bytes(range(1, 1 + sizes.key + sizes.salt)))


def ip_packet(protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return head + SOURCE.packed + DESTINATION.packed + payload


def udp(payload: bytes) -> bytes:
    return ip_packet(socket.IPPROTO_UDP, struct.pack("!HHHH", 500, 500, 8 + len(payload), 0) + payload)


def write_pcap(path: Path, packets: Iterable[bytes]) -> None:
    """A capture of IP packets (link type 101)."""
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101))
        for second, packet in enumerate(packets):
            file.write(struct.pack("=IIII", second, 0, len(packet), len(packet)) + packet)


def ike_sa(number: int, cipher: Cipher, integrity: IntegrityId) -> tuple[IkeSaKeys, bytes]:
    """The keys of an IKE SA, and a message of it."""
    sk_e, sk_a = key(cipher), Secret(bytes(INTEGRITY_KEY_BYTES[integrity]))
    spi_i, spi_r = number.to_bytes(8), (number + 1000).to_bytes(8)
    protection = MessageProtection(cipher, integrity, sk_e, sk_a)
    message = seal_message(
        spi_i=spi_i,
        spi_r=spi_r,
        exchange_type=ExchangeType.INFORMATIONAL,
        initiator=True,
        response=False,
        message_id=2,
        payloads=[Notify(type=MARK)],
        protection=protection,
        iv=bytes(protection.iv_bytes),
    )
    keys = IkeSaKeys(
        peer="other",
        spi_i=spi_i,
        spi_r=spi_r,
        cipher=cipher,
        integrity=integrity,
        sk_ei=sk_e,
        sk_er=sk_e,
        sk_ai=sk_a,
        sk_ar=sk_a,
    )
    return keys, udp(message)


def esp_sa(spi: int, cipher: Cipher, integrity: IntegrityId, *, esn: bool) -> tuple[EspSaKeys, bytes]:
    """The keys of an SA, and a packet of it, with an ICMP echo in it."""
    sa = make_sa(spi=spi, cipher=cipher, integrity=integrity, esn=esn)
    keys = EspSaKeys(
        spi=spi,
        source=SOURCE,
        destination=DESTINATION,
        cipher=cipher,
        integrity=integrity,
        encryption_key=sa.encryption_key,
        integrity_key=sa.integrity_key,
        esn=esn,
    )
    return keys, ip_packet(socket.IPPROTO_ESP, esp.sealer(sa)(1, INNER, socket.IPPROTO_IPIP))


def test_wireshark_decrypts_each_algorithm_that_has_a_line(tmp_path: Path) -> None:
    try:
        tshark = Tshark(tmp_path / "home")
    except Unavailable as reason:
        pytest.skip(str(reason))
    ike = [ike_sa(number, *suite) for number, suite in enumerate(suites(), 1)]
    each = enumerate((suite, esn) for suite in suites() for esn in (False, True))
    child = [esp_sa(0x1000 + number, *suite, esn=esn) for number, (suite, esn) in each]
    ike_lines = {keys.spi_i.hex(): line for keys, _ in ike if (line := ike_line(keys)) is not None}
    esp_lines = {f"0x{keys.spi:08x}": line for keys, _ in child if (line := esp_line(keys)) is not None}
    assert {cipher_name(keys.cipher) for keys, _ in ike if ike_line(keys) is None} == NOT_IN_IKE
    assert {cipher_name(keys.cipher) for keys, _ in child if esp_line(keys) is None} == NOT_IN_ESP
    tables, capture = tmp_path / "tables", tmp_path / "all.pcap"
    tables.mkdir()
    (tables / IKE_TABLE).write_text("".join(f"{line}\n" for line in ike_lines.values()))
    (tables / ESP_TABLE).write_text("".join(f"{line}\n" for line in esp_lines.values()))
    write_pcap(capture, [packet for _, packet in (*ike, *child)])
    tshark.give_tables(tables)
    marked = tshark.read(capture, "-Y", f"isakmp.notify.msgtype == {MARK}", "-T", "fields", "-e", "isakmp.ispi")
    assert set(marked.split()) == set(ike_lines)
    echoes = tshark.read(capture, "-Y", "icmp.type == 8", "-T", "fields", "-e", "esp.spi")
    assert set(echoes.split()) == set(esp_lines)


def test_what_it_can_not_decrypt_is_named() -> None:
    chacha = Cipher(id=EncryptionId.CHACHA20_POLY1305, key_bits=256)
    assert unreadable({chacha}).startswith("Wireshark can't decrypt chacha20poly1305")
