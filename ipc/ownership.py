"""What marks kernel objects as an instance's own: only objects so tagged are ever created, changed or removed."""

OWNER_TAG = 0x49
"""Top byte of the reqid of every SA and of the index of every XFRM policy."""

SECURE_TAG = 0x4A
"""Top byte of the index, and `user` of the selector, of the policies that secure mode needs. They stay at a stop."""

XFRM_TAG_BASE = OWNER_TAG << 24
"""reqid = XFRM_TAG_BASE | rule_id; policy index = XFRM_TAG_BASE | serial << 3 | direction."""

TUN_INTERFACE = "ipsec0"
"""The device of the user-space data path."""

INNER_MARK = 0x1000_0000
"""Bit in the packet mark: came out of our TUN, so was authenticated. The user-space path's inbound policies want it."""

OUTER_MARK = 0x2000_0000
"""Bit in the socket mark of our IKE and ESP sockets: their packets never go into the TUN."""

INTERFACE_MARK_MASK = 0x0FFF_0000
"""Bits in the packet mark where the index of the interface stands by which a packet came in, if a rule names one."""

MOST_INTERFACE_INDEX = INTERFACE_MARK_MASK // (INTERFACE_MARK_MASK & -INTERFACE_MARK_MASK)
"""Above it an interface can't be told by the mark."""


def interface_mark(ifindex: int) -> int:
    """The mark of packets that came in there."""
    return ifindex * (INTERFACE_MARK_MASK & -INTERFACE_MARK_MASK)


NFT_TABLE = "ipsecd"
"""The nftables table (family inet)."""

NFT_LOG_TABLE = "ipsecd_log"
"""Another one, while packets that no rule matches are logged; it goes with the agent's socket that made it."""

NFLOG_GROUP = 0x4950
"""The NFLOG group of such packets."""

ROUTE_PROTOCOL = 73
"""rtnetlink protocol number of our routes and rules."""

ROUTE_TABLE = 4500
"""Routing table that leads into the TUN; what is gathered for a local prefix has one of its own."""

RULE_PREFERENCE_FIRST = 4500
"""Our policy routing rules have preferences from here on, the last one ..."""

RULE_PREFERENCE_LAST = 5499
"""... here."""
