"""Numbers of NETLINK_XFRM (linux/xfrm.h) and of netlink itself (linux/netlink.h)."""

import enum

NETLINK_ROUTE = 0
NETLINK_XFRM = 6
NETLINK_NETFILTER = 12

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSGERR_ATTR_MSG = 1


class XfrmMessage(enum.IntEnum):
    """Message types."""

    NEWSA = 0x10
    DELSA = 0x11
    GETSA = 0x12
    NEWPOLICY = 0x13
    DELPOLICY = 0x14
    GETPOLICY = 0x15
    ACQUIRE = 0x17
    EXPIRE = 0x18
    UPDPOLICY = 0x19
    NEWSPDINFO = 0x24
    GETSPDINFO = 0x25
    MAPPING = 0x26
    SETDEFAULT = 0x27
    GETDEFAULT = 0x28


class XfrmGroup(enum.IntEnum):
    """Multicast groups."""

    ACQUIRE = 1
    EXPIRE = 2
    MAPPING = 8


class XfrmAttribute(enum.IntEnum):
    """Attribute types."""

    ALG_CRYPT = 2
    ENCAP = 4
    TMPL = 5
    LASTUSED = 15
    ALG_AEAD = 18
    ALG_AUTH_TRUNC = 20
    MARK = 21
    REPLAY_ESN_VAL = 23
    SA_EXTRA_FLAGS = 24
    SET_MARK = 29
    SET_MARK_MASK = 30
    MTIMER_THRESH = 32


class SpdAttribute(enum.IntEnum):
    """Attribute types of NEWSPDINFO."""

    INFO = 1
    IPV4_HTHRESH = 3
    IPV6_HTHRESH = 4


class PolicyAction(enum.IntEnum):
    """What a policy does with a packet; with templates, ALLOW means: as the templates say."""

    ALLOW = 0
    BLOCK = 1


class StateFlag(enum.IntFlag):
    """Flags of xfrm_usersa_info."""

    AF_UNSPEC = 32
    ESN = 128


SEQUENCE_MAY_WRAP = 2
"""XFRM_SA_XFLAG_OSEQ_MAY_WRAP, in SA_EXTRA_FLAGS."""
IPPROTO_ESP = 50
UDP_ENCAP_ESPINUDP = 2
XFRM_INF = 0xFFFF_FFFF_FFFF_FFFF
ALL_ALGORITHMS = 0xFFFF_FFFF
