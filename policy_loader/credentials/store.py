"""The secrets of a policy, by peer. Nothing of them leaves this process but what `signer` makes of them."""

import enum
from collections.abc import Mapping
from dataclasses import field

from ipc.types import Secret
from ipc.value import value
from policy_loader import values
from policy_loader.credentials.certificates import Certificate
from policy_loader.credentials.chain import Trust
from policy_loader.credentials.keys import PrivateKey, PublicKey
from policy_loader.credentials.revocation import StatusFile
from policy_loader.credentials.signatures import SigningRules
from policy_loader.sources import file

SHORT_PSK_BYTES = 16
"""Below this, a recorded handshake with an active attacker may be enough to guess the key (RFC 7296 section 2.15)."""


class AuthKind(enum.Enum):
    """How one side proves who it is."""

    PSK = "psk"
    CERTIFICATE = "certificate"
    PUBLIC_KEY = "public-key"


@value
class OwnKey:
    """What we sign with towards a peer."""

    key: PrivateKey = field(repr=False)
    certificates: tuple[Certificate, ...] = ()
    """Ours, then those that lead from it to an authority; empty where the bare key is known to the peer."""
    ocsp_files: tuple[StatusFile, ...] = ()
    """Responses about these certificates, for a peer that asks for them (RFC 4806)."""


@value
class PeerCredentials:
    """How we and one peer authenticate. What a kind does not need is None."""

    local: AuthKind
    remote: AuthKind
    psk: Secret | None = None
    own: OwnKey | None = None
    trust: Trust | None = None
    remote_key: PublicKey | None = None
    rules: SigningRules = field(default_factory=SigningRules)


class CredentialStore:
    """The credentials of one policy."""

    __slots__ = ("_by_peer", "status_files")

    def __init__(self, by_peer: Mapping[str, PeerCredentials], status_files: tuple[StatusFile, ...] = ()) -> None:
        self._by_peer = dict(by_peer)
        self.status_files = status_files
        """CRLs and OCSP responses: what changes while a policy is in force."""

    def of(self, peer: str) -> PeerCredentials | None:
        """The credentials of the peer of this name; None if there are none."""
        return self._by_peer.get(peer)

    def other_psks(self, old: "CredentialStore") -> tuple[str, ...]:
        """The peers with whom we share another key than in `old`; those that had none, or have none now, left out."""
        both = ((name, one.psk, old._by_peer.get(name)) for name, one in self._by_peer.items())
        return tuple(name for name, psk, was in both if psk and was and was.psk and psk != was.psk)

    def __repr__(self) -> str:
        return f"CredentialStore({len(self._by_peer)} peers)"


def of_psk(psk: Secret) -> PeerCredentials:
    """The credentials of two sides that share a key."""
    return PeerCredentials(local=AuthKind.PSK, remote=AuthKind.PSK, psk=psk)


def psk_of_file(content: Secret, mode: int, uid: int) -> Secret:
    """The pre-shared key in a psk_file: its bytes, less one line's end.

    ValueError, which never quotes the content, if the file is not root's alone or holds no key.
    """
    complaints = file.complaints(mode, uid)
    if complaints:
        raise ValueError("; ".join(complaints))
    return values.check_psk(content.reveal().removesuffix(b"\n").removesuffix(b"\r"))


def is_short(psk: Secret) -> bool:
    """Whether a key is short enough to be guessed; the operator is warned."""
    return len(psk) < SHORT_PSK_BYTES
