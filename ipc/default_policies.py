"""Whether the kernel is in secure mode, as a quick look tells it: one message to netlink, no program of ours.

The mode is the kernel's default policies (see `kernel_agent.secure`, which changes them), and any root may change
them beside us, so it is asked of the kernel each time.
"""

import socket
import struct

_NETLINK_XFRM = 6
_XFRM_MSG_GETDEFAULT = 0x28
_NLM_F_REQUEST = 1
_BLOCK = 1
_MESSAGE = struct.Struct("=IHHII3Bx")
"""struct nlmsghdr, and struct xfrm_userpolicy_default { __u8 in, fwd, out; } of linux/xfrm.h."""


def all_block(within_s: float) -> bool:
    """Whether the kernel drops what no policy allows, in all directions; False in one that does not say.

    TimeoutError if there is no answer within `within_s`.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_XFRM) as asked:
            asked.settimeout(within_s)
            asked.send(_MESSAGE.pack(_MESSAGE.size, _XFRM_MSG_GETDEFAULT, _NLM_F_REQUEST, 1, 0, 0, 0, 0))
            answer = asked.recv(4096)
    except TimeoutError:
        raise
    except OSError:
        return False
    if len(answer) < _MESSAGE.size:
        return False
    _length, kind, _flags, _sequence, _pid, *defaults = _MESSAGE.unpack_from(answer)
    return kind == _XFRM_MSG_GETDEFAULT and defaults == [_BLOCK] * 3
