"""`python -m kernel_agent.abilities`: what this machine can do for IPsec, tried where it harms nobody; JSON on stdout.

Whatever must be made to find out is made in a network namespace of its own, which vanishes with this program.
"""

import dataclasses
import fcntl
import json
import os
import struct
import sys
from collections.abc import Callable

from ipc.algorithms import CIPHER_NAMES, INTEGRITY_KEY_BYTES, Cipher, IntegrityId, cipher_sizes
from ipc.messages import Sa
from ipc.ownership import TUN_INTERFACE
from ipc.types import Secret
from ipc.value import value
from kernel_agent import netfilter, secure, unmatched
from kernel_agent.probe import PROBE_SA, scratch_namespace
from kernel_agent.userspace import esp
from kernel_agent.xfrm.constants import NETLINK_NETFILTER, NETLINK_XFRM, XfrmMessage
from kernel_agent.xfrm.messages import new_sa
from kernel_agent.xfrm.netlink import Request, RequestSocket

LOOPBACK_INDEX = 1
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000


@value
class Ability:
    """One thing that was tried."""

    name: str
    present: bool
    detail: str
    """What there is, or why there is none."""


def try_all() -> tuple[Ability, ...]:
    """Everything, the namespace itself first; what depends on it is left out where there can be none."""
    try:
        with scratch_namespace():
            here = (
                _tried("xfrm", _try_xfrm),
                _tried("nftables", _try_nftables),
                _tried("tun", _try_tun),
                _tried("secure-mode", _look_at_default_policies),
                _tried("unmatched-log", _try_unmatched_log),
                _ciphers("kernel-esp", _try_kernel_cipher),
            )
    except OSError as error:
        return (Ability(name="namespaces", present=False, detail=str(error.strerror)), _userspace())
    return (Ability(name="namespaces", present=True, detail="tried in one of our own"), *here, _userspace())


def _userspace() -> Ability:
    return _ciphers("userspace-esp", _try_userspace_cipher)


def _tried(name: str, attempt: Callable[[], str]) -> Ability:
    try:
        return Ability(name=name, present=True, detail=attempt())
    except OSError as error:
        return Ability(name=name, present=False, detail=str(error.strerror))


def _try_xfrm() -> str:
    xfrm = RequestSocket(NETLINK_XFRM)
    try:
        xfrm.dump(XfrmMessage.GETPOLICY, bytes(64))
    finally:
        xfrm.close()
    return "policies can be read and written"


def _try_nftables() -> str:
    requests = RequestSocket(NETLINK_NETFILTER)
    try:
        netfilter.install(requests, LOOPBACK_INDEX)
    finally:
        requests.close()
    return "the table of the user-space data path can be made"


def _try_tun() -> str:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", TUN_INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI))
    finally:
        os.close(descriptor)
    return "/dev/net/tun makes devices"


def _look_at_default_policies() -> str:
    xfrm = RequestSocket(NETLINK_XFRM)
    try:
        secure.show(xfrm)
    finally:
        xfrm.close()
    return "the kernel has default policies"


def _try_unmatched_log() -> str:
    requests = RequestSocket(NETLINK_NETFILTER)
    try:
        unmatched.install(requests, (), {})
    finally:
        requests.close()
    return "packets that no rule matches can be logged"


def _ciphers(name: str, attempt: Callable[[Sa], None]) -> Ability:
    """Present if any cipher works; `detail` names those that do, or why the first does not."""
    works: list[str] = []
    why = ""
    for word, cipher in CIPHER_NAMES.items():
        try:
            attempt(_sa(cipher))
            works.append(word)
        except Exception as error:  # noqa: BLE001 - the kernel and libcrypto have many ways to say that there is none
            why = why or f"{word}: {getattr(error, 'strerror', None) or error}"
    return Ability(name=name, present=bool(works), detail=", ".join(works) if works else why)


def _sa(cipher: Cipher) -> Sa:
    sizes = cipher_sizes(cipher)
    integrity = IntegrityId.NONE if sizes.aead else IntegrityId.HMAC_SHA2_256_128
    return dataclasses.replace(
        PROBE_SA,
        cipher=cipher,
        integrity=integrity,
        encryption_key=Secret(bytes(sizes.key + sizes.salt)),
        integrity_key=Secret(bytes(INTEGRITY_KEY_BYTES[integrity])),
        spi=0x1000 + int(cipher.id) * 512 + cipher.key_bits,
    )


def _try_kernel_cipher(sa: Sa) -> None:
    xfrm = RequestSocket(NETLINK_XFRM)
    try:
        xfrm.execute([Request(XfrmMessage.NEWSA, new_sa(sa))])
    finally:
        xfrm.close()


def _try_userspace_cipher(sa: Sa) -> None:
    packet = esp.sealer(sa)(1, b"probe", 59)
    if esp.opener(sa)(packet, 1) is None:
        raise ValueError("what was sealed can't be opened")


def main() -> int:
    """The command."""
    print(json.dumps([dataclasses.asdict(one) for one in try_all()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
