"""Whether a peer's entry has what its way of authentication needs, and nothing that this has no use for."""

from collections.abc import Callable

from policy_loader.credentials.store import AuthKind
from policy_loader.errors import Key
from policy_loader.model import PeerEntry

Say = Callable[[Key, str], None]

_OF_LOCAL = {
    AuthKind.PSK: (),
    AuthKind.CERTIFICATE: ("certificate_file", "key_file"),
    AuthKind.PUBLIC_KEY: ("key_file",),
}
_OF_REMOTE = {
    AuthKind.PSK: (),
    AuthKind.CERTIFICATE: ("ca_files",),
    AuthKind.PUBLIC_KEY: ("remote_public_key_file",),
}
_MEANING = {
    "certificate_file": "the file with our certificate",
    "key_file": "the file with our private key",
    "ca_files": "the files with the certificates of those who must have issued the peer's",
    "remote_public_key_file": "the file with the peer's public key",
}
_MAY_LOCAL = {
    AuthKind.PSK: (),
    AuthKind.CERTIFICATE: ("own_ocsp_files", "pkcs1_signatures", "sha1_signatures"),
    AuthKind.PUBLIC_KEY: ("pkcs1_signatures", "sha1_signatures"),
}
_MAY_REMOTE = {
    AuthKind.PSK: (),
    AuthKind.CERTIFICATE: ("crl_files", "ocsp_files", "revocation_required", "sha1_signatures"),
    AuthKind.PUBLIC_KEY: ("sha1_signatures",),
}
_ALL = (*_MEANING, *_MAY_LOCAL[AuthKind.CERTIFICATE], "crl_files", "ocsp_files", "revocation_required")


def check_authentication(key: Key, peer: PeerEntry, wrong: Say) -> None:
    """All that is wrong with it; what stands in the files is still to come."""
    local, remote = peer.auth, peer.remote_kind
    if local is None or remote is None:
        return
    _check_psk(key, peer, AuthKind.PSK in (local, remote), wrong)
    needed = (*_OF_LOCAL[local], *_OF_REMOTE[remote])
    for name in needed:
        if not getattr(peer, name):
            kind = local if name in _OF_LOCAL[local] else remote
            wrong((*key, name), f'is missing: "{kind.value}" needs {_MEANING[name]}')
    useful = {*needed, *_MAY_REMOTE[remote], *_MAY_LOCAL[local]}
    for name in _ALL:
        if name in peer.given and name not in useful:
            how = f'auth = "{local.value}"' + (f' and remote_auth = "{remote.value}"' if remote is not local else "")
            wrong((*key, name), f"has no use with {how}: leave it out")


def _check_psk(key: Key, peer: PeerEntry, wanted: bool, wrong: Say) -> None:
    if not wanted:
        for name in ("psk", "psk_file"):
            if name in peer.given:
                wrong((*key, name), "has no use where nobody authenticates by pre-shared key: leave it out")
    elif (peer.psk is None) is (peer.psk_file is None):
        both = "stand there both: keep one" if peer.psk else "are missing: write one of the two"
        wrong((*key, "psk"), f"psk and psk_file {both}")
