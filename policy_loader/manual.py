"""Manual keying: peers whose SPIs and keys stand in the policy, and the SAs that come of them. No IKE is spoken.

Such a key lives as long as it stands in the file, and sequence numbers begin again with each start. So there is no
anti-replay service and no ESN (RFC 4303 sections 2.2 and 3.3.3), and no cipher whose IV is a counter: AES-GCM and
ChaCha20-Poly1305 must not have a fixed key (RFC 4106 section 2, RFC 7634 section 2, RFC 8221 section 4).
"""

from collections.abc import Callable
from dataclasses import field

from ipc.algorithms import INTEGRITY_KEY_BYTES, EncryptionId, EsnId, EspProposal, cipher_sizes, esp_suite_name
from ipc.messages import KernelRule, ManualTunnel, Sa
from ipc.types import Direction, IpAddress, Secret, TrafficSelector
from ipc.value import value
from policy_loader import values
from policy_loader.errors import Key
from policy_loader.model import IKE_ONLY_PEER_KEYS, PeerEntry
from policy_loader.proposals import esp_words
from policy_loader.sources import file
from policy_loader.values import HostName

Say = Callable[[Key, str], None]


@value
class ManualKeys:
    """The keys of both directions: of the cipher, and behind it that of the integrity algorithm."""

    inward: Secret = field(repr=False)
    outward: Secret = field(repr=False)


def check_manual_peer(key: Key, peer: PeerEntry, rules: int, wrong: Say) -> None:
    """All that is wrong with a peer with manual keys that `rules` rules use; a file's content is still to come."""
    for name in IKE_ONLY_PEER_KEYS:
        if name in peer.given:
            wrong((*key, name), "no IKE is spoken with a peer that has manual keys: leave it out")
    if peer.address is None or isinstance(peer.address, HostName):
        wrong((*key, "address"), "with manual keys this must be an IPv4 or IPv6 address")
    elif peer.local_address is None:
        wrong((*key, "local_address"), "is missing: SAs with manual keys need both addresses")
    elif peer.local_address.version != peer.address.version or peer.local_address == peer.address:
        wrong((*key, "local_address"), f"must be another IPv{peer.address.version} address, as the peer's is")
    for name in ("spi_in", "spi_out"):
        if getattr(peer, name) is None:
            wrong((*key, name), "is missing: both sides agree on an SPI for each direction, 0x100 to 0xffffffff")
    if rules > 1:
        wrong(key, "is used by more than one rule: a pair of SPIs and keys is for one; write a peer for each")
    for name in ("key_in", "key_out"):
        if (getattr(peer, name) is None) is (getattr(peer, f"{name}_file") is None):
            both = "stand there both: keep one" if getattr(peer, name) else "are missing: write one of the two"
            wrong((*key, name), f"{name} and {name}_file {both}")
    if peer.algorithm is None:
        wrong((*key, "algorithm"), 'is missing: write a cipher and an integrity algorithm, such as "aes256-sha256"')
        return
    _check_algorithm((*key, "algorithm"), peer.algorithm, wrong)
    for name in ("key_in", "key_out"):
        try:
            if getattr(peer, name) is not None:
                check_length(getattr(peer, name), peer.algorithm)
        except ValueError as error:
            wrong((*key, name), str(error))


def _check_algorithm(key: Key, algorithm: EspProposal, wrong: Say) -> None:
    if algorithm.encryption[0].id is not EncryptionId.AES_CBC:
        wrong(key, "this cipher must never have a fixed key (RFC 8221 section 4): write aes256 or aes128 with sha256")
    elif len(algorithm.encryption) > 1 or len(algorithm.integrity) > 1:
        wrong(key, "with manual keys there is no choice: write one cipher and one integrity algorithm")
    if algorithm.esn != (EsnId.NO_ESN,) or algorithm.key_exchange:
        wrong(key, "with manual keys there is neither esn nor a key exchange: leave them out (RFC 4303 section 3.3.3)")


def check_length(key: Secret, algorithm: EspProposal) -> Secret:
    """`key` if it is as long as `algorithm` wants; else ValueError."""
    cipher, integrity = cipher_sizes(algorithm.encryption[0]).key, _integrity_bytes(algorithm)
    if len(key) != cipher + integrity:
        raise ValueError(
            f"{esp_words(algorithm).removesuffix('-noesn')} takes {cipher + integrity} bytes, {cipher} for the cipher "
            f"and then {integrity} for the integrity algorithm; these are {len(key)}"
        )
    return key


def key_of_file(content: Secret, mode: int, uid: int, algorithm: EspProposal | None) -> Secret:
    """The key in a key_in_file or key_out_file; ValueError, which never quotes it, if it is none or open to others."""
    complaints = file.complaints(mode, uid)
    if complaints:
        raise ValueError("; ".join(complaints))
    key = values.check_key(content.reveal())
    return key if algorithm is None else check_length(key, algorithm)


def sas_of(
    peer: PeerEntry,
    rule: KernelRule,
    keys: ManualKeys,
    local: tuple[TrafficSelector, ...],
    remote: tuple[TrafficSelector, ...],
) -> tuple[Sa, ...]:
    """Both SAs of the rule whose peer has manual keys; ValueError if the peer is not a whole one."""
    ours, theirs = peer.local_address, rule.peer_address
    if ours is None or theirs is None or peer.spi_in is None or peer.spi_out is None or peer.algorithm is None:
        raise ValueError(f"rule {rule.name} lacks what manual keying needs")
    cipher, integrity = peer.algorithm.encryption[0], peer.algorithm.integrity[0]
    key_bytes = cipher_sizes(cipher).key

    def make(direction: Direction, spi: int, source: IpAddress, destination: IpAddress, key: Secret) -> Sa:
        return Sa(
            rule_id=rule.rule_id,
            direction=direction,
            spi=spi,
            source=source,
            destination=destination,
            mode=rule.mode,
            encapsulation=None,
            cipher=cipher,
            integrity=integrity,
            encryption_key=Secret(key.reveal()[:key_bytes]),
            integrity_key=Secret(key.reveal()[key_bytes:]),
            esn=False,
            replay_window_packets=0,
            local=local,
            remote=remote,
            soft_lifetime_s=0.0,
            hard_lifetime_s=0.0,
            acquire_id=0,
        )

    return (
        make(Direction.IN, peer.spi_in, theirs, ours, keys.inward),
        make(Direction.OUT, peer.spi_out, ours, theirs, keys.outward),
    )


def tunnel_of(peer: str, rule: KernelRule, sas: tuple[Sa, ...]) -> ManualTunnel:
    """What status shows of the SAs that `sas_of` has made."""
    inward, outward = sas
    return ManualTunnel(
        rule=rule.name,
        peer=peer,
        mode=rule.mode,
        local_address=outward.source,
        peer_address=outward.destination,
        spi_in=inward.spi,
        spi_out=outward.spi,
        algorithms=esp_suite_name(outward.cipher, outward.integrity, outward.esn),
        local=outward.local,
        remote=outward.remote,
    )


def _integrity_bytes(algorithm: EspProposal) -> int:
    return INTEGRITY_KEY_BYTES[algorithm.integrity[0]] if algorithm.integrity else 0
