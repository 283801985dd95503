"""AUTH payloads (RFC 7296 section 2.15): made and checked here, so that no long-term secret leaves this process.

    octets = message | nonce | prf(SK_p, ID payload body)
    AUTH   = prf(prf(PSK, "Key Pad for IKEv2"), octets), or a signature over octets

The signer believes nothing that the worker says of itself. It signs only for our identity towards the peer at hand,
and only octets that begin with a real IKE_SA_INIT message of the right direction: a worker that was broken into can't
have the peer's AUTH made, nor anything that is good for another purpose.
"""

import datetime
import hmac
from collections.abc import Sequence
from typing import TypeVar

from ipc import identities
from ipc.algorithms import PRF_BYTES, PRF_DIGESTS
from ipc.messages import MAX_CERTIFICATES, CertificateData, ComputeAuth, Peer, VerifyAuth
from ipc.types import AuthMethod, CertificateEncoding, Identity, Secret
from ipc.value import value
from policy_loader.credentials import certificates, chain, keys, revocation, signatures
from policy_loader.credentials.certificates import Certificate, CertificateError
from policy_loader.credentials.chain import ChainRefused, Trust
from policy_loader.credentials.identity_check import has_identity, identities_of
from policy_loader.credentials.keys import PublicKey
from policy_loader.credentials.revocation import Status, der_of
from policy_loader.credentials.signatures import SignatureRefused
from policy_loader.credentials.store import AuthKind, OwnKey, PeerCredentials

KEY_PAD = b"Key Pad for IKEv2"

T = TypeVar("T")

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


class NotAuthentic(Exception):
    """The peer has not shown who it is; the text says which check failed, and is for our operator only."""


@value
class OwnAuth:
    """Our AUTH, and the CERT payloads that go with it."""

    method: AuthMethod
    data: bytes
    certificates: tuple[CertificateData, ...] = ()


# ------------------------------------------------------------------ ours


def compute_auth(request: ComputeAuth, peer: Peer, credentials: PeerCredentials) -> OwnAuth:
    """Our AUTH to `peer`; RequestRefused if that is malformed, not for our identity, or can't be done."""
    _check(request)
    if request.id_payload != _body(peer.local_id):
        raise RequestRefused(f"the ID payload is not our identity, {peer.local_id}")
    octets = _octets(request)
    if credentials.local is AuthKind.PSK:
        return OwnAuth(method=AuthMethod.PSK, data=_mac(request, _needed(credentials.psk), octets))
    own = _needed(credentials.own)
    try:
        signature = signatures.sign(own.key, octets, request.hash_algorithms, credentials.rules)
    except SignatureRefused as error:
        raise RequestRefused(str(error)) from None
    sent = _certificates_to_send(own, request.requested_encodings)
    return OwnAuth(method=signature.method, data=signature.data, certificates=sent)


def _certificates_to_send(own: OwnKey, requested: Sequence[int]) -> tuple[CertificateData, ...]:
    """Ours first (RFC 7296 section 3.6), asked for or not; bare key (RFC 7670), OCSP (RFC 4806) only if asked for."""
    wants_raw = CertificateEncoding.RAW_PUBLIC_KEY in requested
    if wants_raw and (not own.certificates or CertificateEncoding.X509_SIGNATURE not in requested):
        info = keys.public_key_info(own.key.public_key())
        return (CertificateData(encoding=CertificateEncoding.RAW_PUBLIC_KEY, data=info),)
    x509 = [CertificateData(encoding=CertificateEncoding.X509_SIGNATURE, data=one.der) for one in own.certificates]
    if CertificateEncoding.OCSP_CONTENT not in requested:
        return tuple(x509)
    responses = [one for file in own.ocsp_files for one in file.status.ocsp_responses]
    ocsp = [CertificateData(encoding=CertificateEncoding.OCSP_CONTENT, data=der_of(one)) for one in responses]
    return (*x509, *ocsp)[:MAX_CERTIFICATES]


# ------------------------------------------------------------------ the peer's


def verify_auth(request: VerifyAuth, peer: Peer, credentials: PeerCredentials, now: datetime.datetime) -> str:
    """How `peer` has shown who it is, for people. NotAuthentic if it has not.

    RequestRefused if the request is malformed, or not for an identity that `peer` may have.
    """
    _check(request)
    identity = _identity(request)
    if identity is None or not identities.matches(peer.remote_id, identity):
        found = identity or request.id_payload.hex()
        raise RequestRefused(f"the ID payload is not the peer's identity, {peer.remote_id}, but {found}")
    octets = _octets(request)
    if credentials.remote is AuthKind.PSK:
        return _verify_mac(request, _needed(credentials.psk), octets)
    if request.method == AuthMethod.PSK:
        raise NotAuthentic(f"it authenticates by pre-shared key, and must by {credentials.remote.value}")
    try:
        if credentials.remote is AuthKind.PUBLIC_KEY:
            if credentials.remote_key is None:
                raise NotAuthentic("its public key is not known")
            _check_sent_key(request, credentials.remote_key)
            return signatures.verify(credentials.remote_key, request.method, request.data, octets, credentials.rules)
        end = _verify_chain(request, _needed(credentials.trust), now)
        if not has_identity(end, identity):
            raise NotAuthentic(f"it says that it is {identity}, but {end} is for {identities_of(end)}")
        how = signatures.verify(end.public_key, request.method, request.data, octets, credentials.rules)
    except (SignatureRefused, ChainRefused, CertificateError) as error:
        raise NotAuthentic(str(error)) from None
    return f"{how}, certificate {end}"


def _verify_mac(request: VerifyAuth, psk: Secret, octets: bytes) -> str:
    if request.method != AuthMethod.PSK:
        raise NotAuthentic(f"it authenticates by method {request.method}, and must by pre-shared key")
    if not hmac.compare_digest(_mac(request, psk, octets), request.data):
        raise NotAuthentic("its pre-shared key is not ours")
    return "pre-shared key"


def _check_sent_key(request: VerifyAuth, key: PublicKey) -> None:
    """A bare key that came along must be the one that we know. A certificate may come too: it proves nothing here."""
    info = keys.public_key_info(key)
    for one in request.certificates:
        if one.encoding == CertificateEncoding.RAW_PUBLIC_KEY and one.data != info:
            raise NotAuthentic("the public key that it sends is not the one in remote_public_key_file")


def _verify_chain(request: VerifyAuth, trust: Trust, now: datetime.datetime) -> Certificate:
    """The certificate of the peer, which must come first (RFC 7296 section 3.6), after a look at its whole chain."""
    sent = [one for one in request.certificates if one.encoding == CertificateEncoding.X509_SIGNATURE]
    if not sent:
        encodings = ", ".join(str(one.encoding) for one in request.certificates)
        raise NotAuthentic(
            f"it sent no X.509 certificate{f', only encoding {encodings}' if encodings else ''}: "
            'have it send one, or write remote_auth = "public-key" with its certificate in remote_public_key_file'
        )
    end = certificates.parse(sent[0].data)
    others = _readable(sent[1:])
    chain.validate(end, others, _revocation_status(request.certificates), trust, now)
    return end


def _readable(sent: Sequence[CertificateData]) -> list[Certificate]:
    """What may help to build the chain; what can't be read can't."""
    found = []
    for one in sent:
        try:
            found.append(certificates.parse(one.data))
        except CertificateError:
            continue
    return found


def _revocation_status(sent: Sequence[CertificateData]) -> Status:
    """CRLs and OCSP responses among the CERT payloads (RFC 4806); they count only where their issuer signed them."""
    crls = []
    responses = []
    for one in sent:
        try:
            if one.encoding == CertificateEncoding.CRL:
                crls.append(revocation.read_crl(one.data))
            elif one.encoding == CertificateEncoding.OCSP_CONTENT:
                responses.append(revocation.read_ocsp(one.data))
        except CertificateError:
            continue
    return Status(crls=tuple(crls), ocsp_responses=tuple(responses))


# ------------------------------------------------------------------ both


def _octets(request: ComputeAuth | VerifyAuth) -> bytes:
    maced_id = hmac.digest(request.sk_p.reveal(), request.id_payload, PRF_DIGESTS[request.prf])
    return request.message + request.nonce + maced_id


def _mac(request: ComputeAuth | VerifyAuth, psk: Secret, octets: bytes) -> bytes:
    digest = PRF_DIGESTS[request.prf]
    return hmac.digest(hmac.digest(psk.reveal(), KEY_PAD, digest), octets, digest)


def _body(identity: Identity) -> bytes:
    return bytes((identity.type, 0, 0, 0)) + identity.data


def _identity(request: VerifyAuth) -> Identity | None:
    body = request.id_payload
    return identities.of_payload(body[0], body[4:]) if body[1:4] == bytes(3) else None


def _needed(value: T | None) -> T:
    if value is None:
        raise RequestRefused("the policy has not what is needed for this peer")
    return value


def _check(request: ComputeAuth | VerifyAuth) -> None:
    if not SHORTEST_NONCE <= len(request.nonce) <= LONGEST_NONCE:
        raise RequestRefused(f"a nonce of {len(request.nonce)} bytes")
    if len(request.sk_p) != PRF_BYTES[request.prf]:
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
