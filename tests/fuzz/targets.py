"""What arbitrary bytes may do to each parser: give a value or the family's own error, nothing else.

The functions here are called by the coverage-guided fuzzer (guided.py) and, with every file of the corpus, by
test_guided.py. A file that once broke a parser stays in the corpus.
"""

import contextlib
from collections.abc import Callable, Mapping

from ike_worker.ikev2.errors import Ikev2Error
from ike_worker.ikev2.wire.message import open_message, parse_message
from ipc.codec import decode, encode
from ipc.errors import MessageRefused
from ipc.types import Secret
from policy_loader import policy_file
from policy_loader.credentials import certificates, chain, identity_check, revocation, signatures
from policy_loader.credentials.certificates import CertificateError
from policy_loader.credentials.chain import ChainRefused
from policy_loader.credentials.revocation import Status
from policy_loader.credentials.signatures import SignatureRefused, SigningRules
from policy_loader.errors import PolicyError
from policy_loader.policy_file import FetchedFile, FoundHost
from policy_loader.rule_ids import RuleIds
from tests.fuzz import authentication
from tests.fuzz.messages import CBC, GCM, authentic, with_true_length


def ike_message(data: bytes) -> None:
    """The first byte chooses: a datagram as it is, one with a true length, or authentic content under a known key."""
    kind, body = data[:1], data[1:]
    if kind < b"\x40":
        datagram = body
    elif kind < b"\x80":
        datagram = with_true_length(body)
    else:
        datagram = authentic(body[1:], body[0], GCM) if body else b""
    try:
        parsed = parse_message(datagram)
        if parsed.encrypted is not None:
            open_message(datagram, parsed, GCM if kind >= b"\x60" else CBC)
    except Ikev2Error:
        return


def policy(data: bytes) -> None:
    """An SPD file, as far as it can be read without the files it names."""
    try:
        parsed = policy_file.read("fuzz.spd", data, 0o600, 0)
        files = {
            path: FetchedFile(content=Secret(b"a secret of 20 bytes"), mode=0o600, uid=0)
            for path in parsed.secret_files()
        }
        hosts = {name: FoundHost(addresses=(), error="no such name") for name in parsed.host_names()}
        parsed.compile(files, RuleIds(), hosts)
    except PolicyError as error:
        assert error.complaints and all(error.complaints), "an error without a text"


def internal_message(data: bytes) -> None:
    """A message between roles: what is taken is written as it was read."""
    try:
        message = decode(data)
    except MessageRefused:
        return
    assert decode(encode(message)) == message


def certificate(data: bytes) -> None:
    """What a peer sends to be authenticated: see authentication.py for how the bytes are taken apart."""
    sent = authentication.taken_apart(data)
    try:
        found = [certificates.parse(der) for der in sent.certificates]
        status = Status(
            crls=tuple(revocation.read_crl(der) for der in sent.crls),
            ocsp_responses=tuple(revocation.read_ocsp(der) for der in sent.ocsp_responses),
        )
        if not found:
            return
        end, *others = found
        str(end), identity_check.identities_of(end)
        for identity in authentication.IDENTITIES:
            identity_check.has_identity(end, identity)
        for method, auth in sent.signatures:
            with contextlib.suppress(SignatureRefused):
                signatures.verify(end.public_key, method, auth, b"octets", SigningRules())
        chain.validate(end, others, status, authentication.trust(), authentication.NOW)
    except (CertificateError, ChainRefused):
        return


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "ike_message": ike_message,
    "policy": policy,
    "internal_message": internal_message,
    "certificate": certificate,
}
