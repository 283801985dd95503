"""The credentials of a peer from the files that its entry in the policy names.

Each file is read once, however many peers name it. What is wrong is gathered, so that an operator sees all of it.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from cryptography.x509 import BasicConstraints

from ipc import distinguished_name
from ipc.messages import MAX_CERTIFICATE_BYTES, CertificateData
from ipc.types import CertificateEncoding, Identity, IdType, Secret
from ipc.value import value
from policy_loader.credentials import certificates, keys, revocation, store
from policy_loader.credentials.certificates import Certificate
from policy_loader.credentials.chain import MOST_CERTIFICATES, Trust
from policy_loader.credentials.files import FetchedFile, public_of, secret_of
from policy_loader.credentials.identity_check import has_identity, identities_of
from policy_loader.credentials.keys import PrivateKey, PublicKey
from policy_loader.credentials.revocation import RevocationRules, Status, StatusFile
from policy_loader.credentials.signatures import SigningRules
from policy_loader.credentials.store import AuthKind, OwnKey, PeerCredentials
from policy_loader.errors import Key, Problem, printable
from policy_loader.model import PeerEntry

SOON = datetime.timedelta(days=14)
"""A certificate of ours that expires within this time is warned of."""
KEY_HASH_BYTES = 20

T = TypeVar("T")


@value
class PublicFacts:
    """What the worker may know of a peer's credentials."""

    local_id: Identity | None
    """Who we are by the subject of our certificate, in its own encoding."""
    certificate_requests: tuple[CertificateData, ...]


def files_of(peer: PeerEntry) -> tuple[str, ...]:
    """The files that `credentials_of` needs."""
    kinds = (peer.auth, peer.remote_kind)
    single = [
        *([peer.psk_file] if AuthKind.PSK in kinds else []),
        *([peer.key_file] if peer.auth in (AuthKind.CERTIFICATE, AuthKind.PUBLIC_KEY) else []),
        *([peer.certificate_file] if peer.auth is AuthKind.CERTIFICATE else []),
        *([peer.remote_public_key_file] if peer.remote_kind is AuthKind.PUBLIC_KEY else []),
    ]
    lists = (*peer.ca_files, *peer.crl_files, *peer.ocsp_files) if peer.remote_kind is AuthKind.CERTIFICATE else ()
    own = peer.own_ocsp_files if peer.auth is AuthKind.CERTIFICATE else ()
    return (*(path for path in single if path is not None), *lists, *own)


class CredentialReader:
    """Reads the credentials of peers; `problems` forbid the policy, `warnings` don't."""

    def __init__(self, files: Mapping[str, FetchedFile], now: datetime.datetime) -> None:
        self._files = files
        self._now = now
        self._read: dict[tuple[object, str], object] = {}
        self._status: dict[tuple[object, str], StatusFile] = {}
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def credentials_of(self, name: str, peer: PeerEntry) -> PeerCredentials | None:
        """All that is needed for `peer`; None where something of it is wrong."""
        if peer.auth is None or peer.remote_kind is None:
            raise ValueError(f"peer {name} does not authenticate")
        table = ("peers", name)
        before = len(self.problems)
        psk = self._psk(table, peer) if AuthKind.PSK in (peer.auth, peer.remote_kind) else None
        own = self._own_key(table, peer) if peer.auth is not AuthKind.PSK else None
        trust = self._trust(table, peer) if peer.remote_kind is AuthKind.CERTIFICATE else None
        remote_key = None
        if peer.remote_kind is AuthKind.PUBLIC_KEY:
            remote_key = self._file((*table, "remote_public_key_file"), peer.remote_public_key_file, _public_key)
        if peer.sha1_signatures:
            text = "RSA signatures over SHA-1 are taken from and made for a peer of old: who breaks SHA-1 is that peer"
            self._warn((*table, "sha1_signatures"), text)
        if len(self.problems) > before:
            return None
        return PeerCredentials(
            local=peer.auth,
            remote=peer.remote_kind,
            psk=psk,
            own=own,
            trust=trust,
            remote_key=remote_key,
            rules=SigningRules(pss=not peer.pkcs1_signatures, sha1=peer.sha1_signatures),
        )

    # --------------------------------------------------------- kinds

    def _psk(self, table: Key, peer: PeerEntry) -> Secret | None:
        psk, key = peer.psk, "psk"
        if peer.psk_file is not None:
            psk, key = self._file((*table, "psk_file"), peer.psk_file, _psk), "psk_file"
        if psk is not None and store.is_short(psk):
            text = f"the key has under {store.SHORT_PSK_BYTES} bytes: it can be guessed (openssl rand -base64 32)"
            self._warn((*table, key), text)
        return psk

    def _own_key(self, table: Key, peer: PeerEntry) -> OwnKey | None:
        key = self._file((*table, "key_file"), peer.key_file, _private_key)
        if peer.auth is AuthKind.PUBLIC_KEY or peer.certificate_file is None:
            return OwnKey(key=key) if key is not None else None
        where = (*table, "certificate_file")
        found = self._file(where, peer.certificate_file, _certificates)
        if key is None or found is None:
            return None
        info = keys.public_key_info(key.public_key())
        end = next((one for one in found if keys.public_key_info(one.public_key) == info), None)
        if end is None:
            text = f"{printable(peer.certificate_file)}: no certificate in it is for the key in {peer.key_file}"
            self._wrong(where, text)
            return None
        self._check_own(where, end, peer.local_id)
        ours = _in_order(end, found)
        files = tuple(self._status_files((*table, "own_ocsp_files"), peer.own_ocsp_files, revocation.ocsp_file))
        self._check_own_ocsp((*table, "own_ocsp_files"), files, ours)
        return OwnKey(key=key, certificates=ours, ocsp_files=files)

    def _check_own_ocsp(self, where: Key, files: Iterable[StatusFile], ours: Sequence[Certificate]) -> None:
        serials = {one.serial for one in ours}
        for file in files:
            if not any(serials & revocation.serials_of(one) for one in file.status.ocsp_responses):
                self._warn(where, f"{printable(file.path)}: the response is about no certificate of certificate_file")

    def _check_own(self, where: Key, certificate: Certificate, identity: Identity | None) -> None:
        if not certificate.not_before <= self._now <= certificate.not_after - SOON:
            since, until = (f"{one:%Y-%m-%d %H:%M} UTC" for one in (certificate.not_before, certificate.not_after))
            self._warn(where, f"{certificate} is valid from {since} to {until}: peers refuse it at other times")
        if identity is not None and not has_identity(certificate, identity):
            text = (
                f"{certificate} is not for local_id, {identity}, but for {identities_of(certificate)}: peers refuse it"
            )
            self._warn((*where[:-1], "local_id"), text)

    def _trust(self, table: Key, peer: PeerEntry) -> Trust:
        authorities = tuple(dict.fromkeys(self._list((*table, "ca_files"), peer.ca_files, _certificates)))
        self._check_authorities((*table, "ca_files"), authorities)
        files = (
            *self._status_files((*table, "crl_files"), peer.crl_files, revocation.crl_file),
            *self._status_files((*table, "ocsp_files"), peer.ocsp_files, revocation.ocsp_file),
        )
        for crl in (crl for file in files for crl in file.status.crls):
            if crl.next_update is not None and crl.next_update < self._now:
                name, date = distinguished_name.text(crl.issuer), f"{crl.next_update:%Y-%m-%d %H:%M} UTC"
                text = f"the CRL of {name} was to be renewed by {date}: until it is, what that has issued is refused"
                self._warn((*table, "crl_files"), text)
        rules = RevocationRules(files=files, required=peer.revocation_required)
        return Trust(authorities=authorities, revocation=rules)

    def _check_authorities(self, where: Key, authorities: Sequence[Certificate]) -> None:
        for one in authorities:
            basic = one.extension(BasicConstraints)
            if basic is None or not basic.ca:
                self._warn(where, f"{one} is no certification authority: nothing that it issues is taken")
            elif not one.not_before <= self._now <= one.not_after:
                self._warn(where, f"{one} is not valid now: nothing that it has issued is taken")
        if len(authorities) * KEY_HASH_BYTES > MAX_CERTIFICATE_BYTES:
            most = MAX_CERTIFICATE_BYTES // KEY_HASH_BYTES
            self._wrong(where, f"{len(authorities)} authorities: at most {most} are allowed")

    def _status_files(
        self, where: Key, paths: Sequence[str], read: Callable[[FetchedFile], Status]
    ) -> Iterator[StatusFile]:
        for index, path in enumerate(paths):
            if (read, path) in self._status:
                yield self._status[read, path]
                continue
            status = self._file((*where, index), path, read)
            if status is not None:
                self._status[read, path] = StatusFile(path, read, status)
                yield self._status[read, path]

    @property
    def status_files(self) -> tuple[StatusFile, ...]:
        """All files with CRLs and OCSP responses, each once."""
        return tuple(self._status.values())

    # --------------------------------------------------------- files

    def _list(self, where: Key, paths: Sequence[str], read: Callable[[FetchedFile], tuple[T, ...]]) -> tuple[T, ...]:
        found = (self._file((*where, index), path, read) for index, path in enumerate(paths))
        return tuple(one for some in found if some is not None for one in some)

    def _file(self, where: Key, path: str | None, read: Callable[[FetchedFile], T]) -> T | None:
        """What is in the file; None if that is not good, which is said."""
        if path is None:
            raise ValueError(f"{where}: no file is named")
        if (read, path) in self._read:
            return self._read[read, path]  # type: ignore[return-value]
        fetched = self._files[path]
        try:
            if fetched.error:
                raise ValueError(printable(fetched.error))
            value = read(fetched)
        except ValueError as error:
            self._wrong(where, f"{printable(path)}: {error}")
            return None
        self._read[read, path] = value
        return value

    def _wrong(self, where: Key, text: str) -> None:
        self.problems.append(Problem(key=where, text=text))

    def _warn(self, where: Key, text: str) -> None:
        self.warnings.append(Problem(key=where, text=text))


def public_facts(credentials: PeerCredentials) -> PublicFacts:
    """What the worker is told of these credentials.

    A bare key of the peer that we have anyway is not asked for: who does not know RFC 7670, such as OpenIKED, would not
    go on.
    """
    own, trust = credentials.own, credentials.trust
    requests: tuple[CertificateData, ...] = ()
    if credentials.remote is AuthKind.CERTIFICATE and trust is not None:
        names = b"".join(dict.fromkeys(one.key_id for one in trust.authorities))
        requests = (CertificateData(encoding=CertificateEncoding.X509_SIGNATURE, data=names),)
        if trust.revocation.wants_ocsp:
            # Whose responses are good shows when they come, so no responder is named (RFC 4806 section 3.1).
            requests += (CertificateData(encoding=CertificateEncoding.OCSP_CONTENT, data=b""),)
    local_id = None
    if own is not None and own.certificates and own.certificates[0].parsed.subject.rdns:
        local_id = Identity(type=IdType.DER_ASN1_DN, data=own.certificates[0].subject)
    return PublicFacts(local_id=local_id, certificate_requests=requests)


def _in_order(end: Certificate, found: Iterable[Certificate]) -> tuple[Certificate, ...]:
    """`end`, then its issuer and so on, as far as they are there; not the authority at the top, which a peer has."""
    ordered = [end]
    while len(ordered) < MOST_CERTIFICATES:
        last = ordered[-1]
        issuer = next(
            (one for one in found if one not in ordered and certificates.same_name(one.subject, last.issuer)), None
        )
        if issuer is None or issuer.self_issued:
            break
        ordered.append(issuer)
    return tuple(ordered)


def _psk(fetched: FetchedFile) -> Secret:
    return store.psk_of_file(fetched.content, fetched.mode, fetched.uid)


def _private_key(fetched: FetchedFile) -> PrivateKey:
    return keys.read_private_key(secret_of(fetched))


def _public_key(fetched: FetchedFile) -> PublicKey:
    return keys.read_public_key(public_of(fetched))


def _certificates(fetched: FetchedFile) -> tuple[Certificate, ...]:
    return certificates.read_certificates(public_of(fetched))
