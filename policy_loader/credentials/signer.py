"""AUTH payloads (RFC 7296 section 2.15): made and checked here, so that no pre-shared key leaves this process.

    octets = message | nonce | prf(SK_p, ID payload body)
    AUTH   = prf(prf(PSK, "Key Pad for IKEv2"), octets)

The signer believes nothing that the worker says of itself. It signs only for our identity towards the peer at hand,
and only octets that begin with a real IKE_SA_INIT message of the right direction: a worker that was broken into can't
have the peer's AUTH made, nor anything that is good for another purpose.
"""

import hmac
from collections.abc import Mapping
from types import MappingProxyType

from ipc.algorithms import PrfId
from ipc.messages import ComputeAuth, Peer, VerifyAuth
from ipc.types import AuthMethod, Identity, Secret

KEY_PAD = b"Key Pad for IKEv2"

_HASHES: Mapping[PrfId, str] = MappingProxyType(
    {PrfId.HMAC_SHA2_256: "sha256", PrfId.HMAC_SHA2_384: "sha384", PrfId.HMAC_SHA2_512: "sha512"}
)
_PRF_BYTES: Mapping[PrfId, int] = MappingProxyType(
    {PrfId.HMAC_SHA2_256: 32, PrfId.HMAC_SHA2_384: 48, PrfId.HMAC_SHA2_512: 64}
)

# RFC 7296 section 3.1
HEADER_BYTES = 28
IKE_SA_INIT = 34
_MAJOR_VERSION = 2
_FLAG_INITIATOR = 0x08
_FLAG_RESPONSE = 0x20

# RFC 7296 section 2.10
SHORTEST_NONCE = 16
LONGEST_NONCE = 256


class RequestRefused(Exception):
    """The policy or RFC 7296 does not allow this request; the text is for the worker's log."""


def compute_auth(request: ComputeAuth, peer: Peer, psk: Secret) -> bytes:
    """Our AUTH data to `peer`; RequestRefused if the request is not for our identity there, or is malformed."""
    _check(request, peer.local_id, "our identity")
    return _auth(request, psk)


def verify_auth(request: VerifyAuth, peer: Peer, psk: Secret) -> bool:
    """Whether `request.data` is the AUTH of `peer`; RequestRefused as above, or if the method is not a shared key."""
    if request.method != AuthMethod.PSK:
        raise RequestRefused(f"peer {peer.name} must authenticate by pre-shared key, not by method {request.method}")
    _check(request, peer.remote_id, "the peer's identity")
    return hmac.compare_digest(_auth(request, psk), request.data)


def _auth(request: ComputeAuth | VerifyAuth, psk: Secret) -> bytes:
    digest = _HASHES[request.prf]
    octets = request.message + request.nonce + hmac.digest(request.sk_p.reveal(), request.id_payload, digest)
    return hmac.digest(hmac.digest(psk.reveal(), KEY_PAD, digest), octets, digest)


def _check(request: ComputeAuth | VerifyAuth, identity: Identity, whose: str) -> None:
    if request.id_payload != bytes((identity.type, 0, 0, 0)) + identity.data:
        raise RequestRefused(f"the ID payload is not {whose}, {identity}")
    if not SHORTEST_NONCE <= len(request.nonce) <= LONGEST_NONCE:
        raise RequestRefused(f"a nonce of {len(request.nonce)} bytes")
    if len(request.sk_p) != _PRF_BYTES[request.prf]:
        raise RequestRefused(f"an SK_p of {len(request.sk_p)} bytes")
    _check_message(request.message, request.initiator)


def _check_message(message: bytes, initiator: bool) -> None:
    if len(message) < HEADER_BYTES or len(message) != int.from_bytes(message[24:28], "big"):
        raise RequestRefused("the message is not as long as an IKE message says of itself")
    if message[17] >> 4 != _MAJOR_VERSION or message[18] != IKE_SA_INIT:
        raise RequestRefused("the message is no IKE_SA_INIT of IKEv2")
    if message[20:24] != bytes(4):
        raise RequestRefused("the message ID is not 0")
    expected = _FLAG_INITIATOR if initiator else _FLAG_RESPONSE
    if message[19] & (_FLAG_INITIATOR | _FLAG_RESPONSE) != expected:
        raise RequestRefused(f"the flags are not those of the {'initiator' if initiator else 'responder'}")
