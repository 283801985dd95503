"""Bodies of XFRM messages from our values, and our values from the kernel's messages. Bytes only, no socket."""

import functools
import socket
import sys

from ipc.algorithms import EncryptionId
from ipc.messages import Acquire, Expire, PeerMoved, Sa, SaName, Usage
from ipc.ownership import INNER_MARK, OWNER_TAG, XFRM_TAG_BASE
from ipc.types import Direction, IpAddress, Mode, PortRange, Prefix, TrafficSelector
from ipc.value import value
from kernel_agent.xfrm import constants as c
from kernel_agent.xfrm import structs
from kernel_agent.xfrm.algorithms import algorithm_attributes
from kernel_agent.xfrm.constants import PolicyAction, SpdAttribute, StateFlag, XfrmAttribute
from kernel_agent.xfrm.structs import ANY_MASKED_PORT, MaskedPort, Selector, pack_attribute

ICMP_PROTOCOLS = frozenset({socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6})
LEGACY_WINDOW_PACKETS = 32
"""The largest replay window that xfrm_usersa_info itself can hold."""
SOFT_PACKETS_WITHOUT_ESN = 0xF000_0000
"""Rekey before 32-bit sequence numbers run out (RFC 4303 section 3.3.3)."""
MAPPING_TOLD_EVERY_S = 5
"""So often it is told at most that a peer sends from elsewhere, unless that changes."""
LONGEST_LIFETIME_S = 10 * 365 * 86400
MAX_KNOWN_ATTRIBUTES = 400_000
FIRST_SA_SERIAL = 1 << 20
"""From here on the serials of the policies of single SAs."""
MAX_SERIAL = FIRST_SA_SERIAL - 1
"""Of the policies of rules."""
SA_POLICY_USER = XFRM_TAG_BASE | 1
"""`user` in the selector of a policy of a single SA."""
_MAX_RULE_ID = (1 << 20) - 1
_PACKED_SA_POLICY_USER = structs.pack_word(SA_POLICY_USER)


@value
class Policy:
    """One XFRM policy, packed: what tells it from others (`direction`, `selector`, `mark`) and what it does."""

    direction: Direction
    selector: bytes
    mark: bytes
    priority: int
    action: PolicyAction
    template: bytes
    """struct xfrm_user_tmpl, or empty."""

    @property
    def key(self) -> bytes:
        """The kernel holds at most one policy of each key."""
        return bytes((self.direction,)) + self.selector + self.mark

    def __str__(self) -> str:
        return describe_key(self.key)


class PolicyEntry:
    """What a policy does; its key says to which packets. There are very many, so it is a plain object."""

    __slots__ = ("action", "index", "priority", "template")

    def __init__(self, index: int, priority: int, action: int, template: bytes) -> None:
        self.index = index
        """0 before the kernel has it."""
        self.priority = priority
        self.action = action
        self.template = template

    def does_as(self, other: "PolicyEntry") -> bool:
        """Whether both do the same."""
        return self.priority == other.priority and self.action == other.action and self.template == other.template

    def __repr__(self) -> str:
        return f"PolicyEntry({self.index:#x}, {self.priority}, {self.action}, {self.template.hex()})"


@value
class InstalledPolicy:
    """A policy that the kernel has, under its index."""

    index: int
    policy: Policy


@value
class InstalledSa:
    """An SA of ours that exists, and the rule it was installed for."""

    name: SaName
    rule_id: int


def policy_index(serial: int, direction: int) -> int:
    """The index that tags a policy as ours; the kernel wants the direction in its low three bits."""
    return XFRM_TAG_BASE | serial << 3 | direction


def serial_of(index: int) -> int:
    """The serial in a tagged index."""
    return (index & 0xFF_FFFF) >> 3


def is_tagged(number: int) -> bool:
    """Whether a policy index or a reqid carries our tag."""
    return number >> 24 == OWNER_TAG


def reqid_of(rule_id: int) -> int:
    """The reqid of the SAs and templates of a rule."""
    return XFRM_TAG_BASE | rule_id


def rule_id_of(reqid: int) -> int:
    """The rule that a tagged reqid names."""
    return reqid & _MAX_RULE_ID


def port_masks(ports: PortRange) -> tuple[MaskedPort, ...]:
    """The fewest (port, mask) pairs that match exactly the ports of `ports`: at most 30."""
    pairs: list[MaskedPort] = []
    first, end = ports.first, ports.last + 1
    while first < end:
        size = first & -first or 1 << 16
        while size > end - first:
            size >>= 1
        pairs.append(MaskedPort(port=first, mask=0x10000 - size))
        first += size
    return tuple(pairs)


def icmp_masks(masked: MaskedPort) -> tuple[MaskedPort, MaskedPort]:
    """ICMP type * 256 + code under a mask, as XFRM has it: the type as source port, the code as destination port."""
    return (
        MaskedPort(port=masked.port >> 8, mask=masked.mask >> 8),
        MaskedPort(port=masked.port & 0xFF, mask=masked.mask & 0xFF),
    )


# ------------------------------------------------------------- policies


def new_policy(policy: Policy, index: int) -> bytes:
    """Body of NEWPOLICY and UPDPOLICY."""
    return pack_policy(policy.key, PolicyEntry(index, policy.priority, policy.action, policy.template), index)


def pack_policy(key: bytes, entry: PolicyEntry, index: int) -> bytes:
    """Body of NEWPOLICY and UPDPOLICY, from a key."""
    info = structs.pack_policy_info(key[1:57], entry.priority, index, key[0], entry.action)
    return info + _policy_attributes(entry.template, key[57:])


@functools.lru_cache(maxsize=65536)
def _policy_attributes(template: bytes, mark: bytes) -> bytes:
    attributes = pack_attribute(XfrmAttribute.TMPL, template) if template else b""
    return attributes if mark == structs.NO_MARK else attributes + pack_attribute(XfrmAttribute.MARK, mark)


def delete_policy(key: bytes, index: int) -> bytes:
    """Body of DELPOLICY: by index, so that it can only be ours."""
    return structs.pack_policy_id(key[1:57], index, key[0]) + _policy_attributes(b"", key[57:])


def describe_key(key: bytes) -> str:
    """For people: direction and selector."""
    selector = structs.unpack_selector(key[1:57])
    direction = Direction(key[0]).name.lower()
    return f"{direction} {selector.source} to {selector.destination} protocol {selector.protocol}"


def packed_family(version: int) -> bytes:
    """The address family as it stands in a selector."""
    return int(socket.AF_INET if version == 4 else socket.AF_INET6).to_bytes(2, sys.byteorder)


def is_of_sa(key: bytes) -> bool:
    """Whether it is the key of a policy of a single SA."""
    return key[53:57] == _PACKED_SA_POLICY_USER


class PolicyReader:
    """Reads bodies of NEWPOLICY, quickly where it has seen their attributes before."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, bytes]] = {}
        """Template and mark by the attributes in which they stand."""

    def read(self, body: bytes) -> tuple[bytes, PolicyEntry]:
        """The key of the policy, and what it does, ours or not; Malformed."""
        if len(body) < structs.POLICY_INFO_BYTES:
            raise structs.Malformed(f"policy: {len(body)} bytes, not {structs.POLICY_INFO_BYTES}")
        priority, index, direction, action = structs.unpack_policy_end(body)
        attributes = body[structs.POLICY_INFO_BYTES :]
        known = self._known.get(attributes)
        if known is None:
            if len(self._known) >= MAX_KNOWN_ATTRIBUTES:
                self._known.clear()
            known = self._known[attributes] = _template_and_mark(attributes)
        template, mark = known
        return bytes((direction,)) + body[:56] + mark, PolicyEntry(index, priority, action, template)


def _template_and_mark(attributes: bytes) -> tuple[bytes, bytes]:
    template, mark = b"", structs.NO_MARK
    for attribute in structs.unpack_attributes(attributes):
        if attribute.kind == XfrmAttribute.TMPL:
            template = attribute.value
        elif attribute.kind == XfrmAttribute.MARK:
            mark = attribute.value
    return template, mark


def tagged_policy(body: bytes) -> InstalledPolicy | None:
    """The policy in a body of NEWPOLICY, None if it is not ours."""
    info = structs.unpack_policy_info(body)
    if not is_tagged(info.index):
        return None
    template, mark = _template_and_mark(body[structs.POLICY_INFO_BYTES :])
    try:
        direction, action = Direction(info.direction), PolicyAction(info.action)
    except ValueError as error:
        raise structs.Malformed(f"policy: {error}") from error
    policy = Policy(
        direction=direction,
        selector=info.selector,
        mark=mark,
        priority=info.priority,
        action=action,
        template=template,
    )
    return InstalledPolicy(index=info.index, policy=policy)


def hash_thresholds(attribute: SpdAttribute, local_bits: int, remote_bits: int) -> bytes:
    """Body of NEWSPDINFO: the prefixes that policies are hashed by (struct xfrmu_spdhthresh { __u8 lbits, rbits; })."""
    return bytes(4) + pack_attribute(attribute, bytes((local_bits, remote_bits)))


# ------------------------------------------------------------- SAs


def new_sa(sa: Sa) -> bytes:
    """Body of NEWSA."""
    window = sa.replay_window_packets
    wide = sa.esn or window > LEGACY_WINDOW_PACKETS
    selector = _sa_selector(sa)
    flags = StateFlag(0)
    if sa.mode is Mode.TUNNEL and not selector:
        flags |= StateFlag.AF_UNSPEC
    if sa.esn:
        flags |= StateFlag.ESN
    body = structs.pack_sa_info(
        structs.SaInfo(
            selector=selector or bytes(structs.SELECTOR_BYTES),
            destination=structs.pack_address(sa.destination),
            spi=sa.spi,
            protocol=c.IPPROTO_ESP,
            source=structs.pack_address(sa.source),
            soft_bytes=sa.soft_lifetime_bytes or c.XFRM_INF,
            hard_bytes=sa.hard_lifetime_bytes or c.XFRM_INF,
            soft_packets=min(sa.soft_lifetime_packets or c.XFRM_INF, _last_sequence_softly(sa)),
            hard_packets=sa.hard_lifetime_packets or c.XFRM_INF,
            soft_seconds=_seconds(sa.soft_lifetime_s),
            hard_seconds=_seconds(sa.hard_lifetime_s),
            # With it, an outbound SA takes the place of the larval one that the ACQUIRE left.
            seq=sa.acquire_id & 0xFFFF_FFFF if sa.direction is Direction.OUT else 0,
            reqid=reqid_of(sa.rule_id),
            family=structs.family_of(sa.destination),
            mode=sa.mode,
            replay_window=0 if wide else window,
            flags=flags,
        )
    )
    body += algorithm_attributes(sa)
    if sa.direction is Direction.IN:
        # What it carries may be forwarded: `policies` let that leave by the mark.
        for attribute in (XfrmAttribute.SET_MARK, XfrmAttribute.SET_MARK_MASK):
            body += pack_attribute(attribute, structs.pack_word(INNER_MARK))
    if wide:
        # The kernel wants a window with ESN on outbound SAs too.
        body += pack_attribute(XfrmAttribute.REPLAY_ESN_VAL, structs.pack_replay_esn(max(window, 1)))
    if may_wrap(sa):
        body += pack_attribute(XfrmAttribute.SA_EXTRA_FLAGS, structs.pack_word(c.SEQUENCE_MAY_WRAP))
    if sa.encapsulation is not None:
        ports = (sa.encapsulation.source_port, sa.encapsulation.destination_port)
        body += pack_attribute(XfrmAttribute.ENCAP, structs.pack_encap(*ports))
        if sa.direction is Direction.IN:
            # Otherwise each packet from elsewhere is an event of its own. Linux before 5.17 does not know it.
            body += pack_attribute(XfrmAttribute.MTIMER_THRESH, structs.pack_word(MAPPING_TOLD_EVERY_S))
    return body


def sa_id(name: SaName) -> bytes:
    """Body of GETSA and DELSA."""
    return structs.pack_sa_id(name.destination, name.spi)


def tagged_sa(body: bytes) -> InstalledSa | None:
    """The SA in a body of NEWSA; None if it is not ours, or only the larval one of an ACQUIRE."""
    info = structs.unpack_sa_info(body)
    if not is_tagged(info.reqid) or info.protocol != c.IPPROTO_ESP or not info.spi:
        return None
    name = SaName(spi=info.spi, destination=structs.unpack_address(info.destination, info.family))
    return InstalledSa(name=name, rule_id=rule_id_of(info.reqid))


def sa_usage(name: SaName, body: bytes, wall_clock_s: float) -> Usage:
    """The counters in a body of NEWSA."""
    info = structs.unpack_sa_info(body)
    last = info.added_at
    for attribute in structs.unpack_attributes(body, structs.SA_INFO_BYTES):
        if attribute.kind == XfrmAttribute.LASTUSED:
            last = int.from_bytes(attribute.value[:8], sys.byteorder)
    idle_s = max(0.0, wall_clock_s - last)
    return Usage(sa=name, packets=info.used_packets, bytes=info.used_bytes, idle_s=idle_s)


def may_wrap(sa: Sa) -> bool:
    """Whether numbers may begin anew: nobody looks at them, and no IV is made of them (RFC 4303 section 3.3.3)."""
    return not sa.esn and not sa.replay_window_packets and sa.cipher.id is EncryptionId.AES_CBC


def _last_sequence_softly(sa: Sa) -> int:
    return c.XFRM_INF if sa.esn or may_wrap(sa) else SOFT_PACKETS_WITHOUT_ESN


def _seconds(lifetime_s: float) -> int:
    return min(LONGEST_LIFETIME_S, max(1, round(min(lifetime_s, LONGEST_LIFETIME_S)))) if lifetime_s else 0


def _sa_selector(sa: Sa) -> bytes:
    """The selector of an SA for one local and one remote prefix; empty where there are more, and policies decide."""
    if len(sa.local) != 1 or len(sa.remote) != 1:
        return b""
    local, remote = sa.local[0], sa.remote[0]
    local_prefix, remote_prefix = _as_prefix(local), _as_prefix(remote)
    local_ports, remote_ports = _single_mask(local), _single_mask(remote)
    if local_prefix is None or remote_prefix is None or local_ports is None or remote_ports is None:
        return b""
    if local.protocol in ICMP_PROTOCOLS:
        outward = inward = icmp_masks(local_ports if local_ports.mask else remote_ports)
    else:
        outward, inward = (local_ports, remote_ports), (remote_ports, local_ports)
    is_out = sa.direction is Direction.OUT
    ports = outward if is_out else inward
    return structs.pack_selector(
        Selector(
            source=local_prefix if is_out else remote_prefix,
            destination=remote_prefix if is_out else local_prefix,
            protocol=local.protocol,
            source_port=ports[0],
            destination_port=ports[1],
        )
    )


def _as_prefix(selector: TrafficSelector) -> Prefix | None:
    if selector.start_address.version != selector.end_address.version:
        return None
    size = int(selector.end_address) - int(selector.start_address) + 1
    if size <= 0 or size & (size - 1) or int(selector.start_address) % size:
        return None
    return Prefix(address=selector.start_address, length=selector.start_address.max_prefixlen - size.bit_length() + 1)


def _single_mask(selector: TrafficSelector) -> MaskedPort | None:
    if selector.protocol == 0:
        return ANY_MASKED_PORT
    pairs = port_masks(PortRange(first=selector.start_port, last=selector.end_port))
    return pairs[0] if len(pairs) == 1 else None


# ------------------------------------------------------------- events


def acquire(body: bytes) -> Acquire | None:
    """An ACQUIRE that one of our policies made, else None.

    struct xfrm_user_acquire {
        struct xfrm_id id; xfrm_address_t saddr; struct xfrm_selector sel; struct xfrm_userpolicy_info policy;
        __u32 aalgos, ealgos, calgos, seq; };
    """
    if len(body) < structs.ACQUIRE_BYTES:
        raise structs.Malformed(f"acquire: {len(body)} bytes, not {structs.ACQUIRE_BYTES}")
    reqids = [
        structs.template_reqid(attribute.value)
        for attribute in structs.unpack_attributes(body, structs.ACQUIRE_BYTES)
        if attribute.kind == XfrmAttribute.TMPL
    ]
    if not reqids or not is_tagged(reqids[0]):
        return None
    selector = structs.unpack_selector(body[40:96])
    local_port, remote_port = selector.source_port, selector.destination_port
    if selector.protocol in ICMP_PROTOCOLS:
        type_and_code = local_port.port << 8 | remote_port.port & 0xFF
        local_port = remote_port = MaskedPort(port=type_and_code, mask=0xFFFF)
    sequence = int.from_bytes(body[276:280], sys.byteorder)
    return Acquire(
        acquire_id=sequence,
        rule_id=rule_id_of(reqids[0]),
        packet_local=_packet_selector(selector.protocol, selector.source.address, local_port),
        packet_remote=_packet_selector(selector.protocol, selector.destination.address, remote_port),
    )


def expire(body: bytes) -> Expire | None:
    """An EXPIRE of an SA of ours, else None. struct xfrm_user_expire { struct xfrm_usersa_info state; __u8 hard; };"""
    if len(body) < structs.EXPIRE_BYTES:
        raise structs.Malformed(f"expire: {len(body)} bytes, not {structs.EXPIRE_BYTES}")
    installed = tagged_sa(body)
    if installed is None:
        return None
    return Expire(sa=installed.name, hard=body[structs.SA_INFO_BYTES] != 0)


def mapping(body: bytes) -> PeerMoved | None:
    """A MAPPING of an SA of ours, else None: its packets, which are authentic, come in UDP from elsewhere now."""
    found = structs.unpack_mapping(body)
    if not is_tagged(found.reqid):
        return None
    name = SaName(spi=found.spi, destination=found.destination)
    return PeerMoved(sa=name, source=found.source, source_port=found.source_port)


def _packet_selector(protocol: int, address: IpAddress, port: MaskedPort) -> TrafficSelector:
    ports = PortRange(first=port.port, last=port.port) if port.mask else PortRange()
    return TrafficSelector(
        protocol=protocol,
        start_address=address,
        end_address=address,
        start_port=ports.first,
        end_port=ports.last,
    )
