"""Pre-shared keys by peer. They come in as file content, and nothing leaves but what `signer` makes of them."""

from collections.abc import Mapping

from ipc.types import Secret
from policy_loader import values
from policy_loader.sources import file

SHORT_PSK_BYTES = 16
"""Below this, a recorded handshake with an active attacker may be enough to guess the key (RFC 7296 section 2.15)."""


class CredentialStore:
    """The secrets of one policy."""

    __slots__ = ("_psks",)

    def __init__(self, psks: Mapping[str, Secret]) -> None:
        self._psks = dict(psks)

    def psk(self, peer: str) -> Secret | None:
        """The pre-shared key of the peer of this name; None if it has none."""
        return self._psks.get(peer)

    def __repr__(self) -> str:
        return f"CredentialStore({len(self._psks)} pre-shared keys)"


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
