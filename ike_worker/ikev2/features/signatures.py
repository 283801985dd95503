"""What signatures need around AUTH: hash algorithms (RFC 7427) and certificates (RFC 7296 sections 3.6 and 3.7).

Nothing here is judged by the worker: what the peer sends goes to the policy loader, and what the loader says, to the
peer.
"""

from collections.abc import Iterable

from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.wire.certificate import Certificate, CertificateRequest
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ipc.messages import MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES, CertificateData, Peer
from ipc.types import OFFERED_SIGNATURE_HASHES, AuthMethod

KEY_HASH_BYTES = 20
"""An authority in CERTREQ: SHA-1 of its SubjectPublicKeyInfo."""
MOST_AUTHORITIES_IN_CLEAR = 8
MOST_HASHES = 64
"""Of those that a peer lists, so many are passed on."""


def may_sign(peer: Peer) -> bool:
    """Whether one of us authenticates by signature."""
    return peer.auth is not AuthMethod.PSK or peer.remote_auth not in (None, AuthMethod.PSK)


def hash_notify() -> Notify:
    """SIGNATURE_HASH_ALGORITHMS: the hashes that signatures to us may use."""
    data = b"".join(one.to_bytes(2, "big") for one in OFFERED_SIGNATURE_HASHES)
    return Notify(type=NotifyType.SIGNATURE_HASH_ALGORITHMS, data=data)


def peer_hashes(contents: Contents) -> tuple[int, ...]:
    """The hashes that signatures to the peer may use; empty for a peer from before RFC 7427."""
    notify = contents.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    data = notify.data[: 2 * MOST_HASHES] if notify is not None else b""
    return tuple(int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data) - 1, 2))


def certificate_requests(peers: Iterable[Peer], *, in_clear: bool) -> list[Payload]:
    """The CERTREQ payloads for who may be any of `peers`: one of each encoding, with all authorities.

    In clear none is named if there are many: a stranger must not get a long answer to a short question.
    """
    asked: dict[int, dict[bytes, None]] = {}
    for peer in peers:
        for one in peer.certificate_requests:
            names = asked.setdefault(one.encoding, {})
            for start in range(0, len(one.data), KEY_HASH_BYTES):
                names[one.data[start : start + KEY_HASH_BYTES]] = None
    return [
        CertificateRequest(
            encoding=encoding, data=b"" if in_clear and len(names) > MOST_AUTHORITIES_IN_CLEAR else b"".join(names)
        )
        for encoding, names in asked.items()
    ]


def requested_encodings(contents: Contents) -> tuple[int, ...]:
    """What kinds of certificate the peer asks for."""
    return tuple(dict.fromkeys(one.encoding for one in contents.certificate_requests))


def certificate_payloads(certificates: Iterable[CertificateData]) -> list[Payload]:
    """The CERT payloads that go with our AUTH."""
    return [Certificate(encoding=one.encoding, data=one.data) for one in certificates]


def certificates_of(contents: Contents) -> tuple[CertificateData, ...]:
    """The peer's CERT payloads, as many and as long as the policy loader takes."""
    return tuple(
        CertificateData(encoding=one.encoding, data=one.data)
        for one in contents.certificates
        if len(one.data) <= MAX_CERTIFICATE_BYTES
    )[:MAX_CERTIFICATES]
