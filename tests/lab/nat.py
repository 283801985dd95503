"""Gateways behind NATs in namespaces of their own: nftables masquerading, with mappings that can be changed.

Where the kernel can't masquerade, a NAT of our own does it (`packet_nat`).

    left 192.168.9.1 -- NAT 10.9.0.254 ===== 10.9.0.2 right                         (left behind a NAT)
    left 192.168.9.1 -- NAT 10.9.0.254 ===== 10.9.0.253 NAT -- 192.168.8.2 right    (both behind one)

Behind left is 10.1.0.0/24, behind right 10.2.0.0/24, each on the loopback device. There may be another gateway behind
the NAT of left: 192.168.7.1, with 10.3.0.0/24 behind it.
"""

import contextlib
import socket
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.lab.namespaces import WIRE, End, Gateways, LabError, Namespace, add_addresses, join
from tests.lab.packet_nat import PacketNat
from tests.lab.spd import LEFT_ID, RIGHT_ID, Pair, Side

OUTSIDE = "outside0"
INSIDE, OTHER_INSIDE = "inside0", "inside1"
LEFT, LEFT_PUBLIC, OTHER = "192.168.9.1", "10.9.0.254", "192.168.7.1"
RIGHT, RIGHT_BEHIND, RIGHT_PUBLIC = "10.9.0.2", "192.168.8.2", "10.9.0.253"
FIRST_PORTS, OTHER_PORTS = range(40000, 41000), range(50000, 51000)

_NETLINK_NETFILTER = 12
_CTNETLINK_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_REQUEST_AND_ACK = 0x5


class Nat:
    """A NAT between an inside and an outside; every UDP flow gets a source port of a range."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._forward = ""

    def forward_ike_to(self, address: str) -> None:
        """Lets what comes to UDP 500 and 4500 from outside through to a host inside."""
        self._forward = f'iifname "{OUTSIDE}" udp dport {{ 500, 4500 }} dnat to {address}'

    def masquerade(self, ports: range) -> None:
        """New flows are given source ports of this range; mappings that there are stay."""
        text = f"""\
table ip lab
delete table ip lab
table ip lab {{
    chain before {{
        type nat hook prerouting priority -100
        {self._forward}
    }}
    chain after {{
        type nat hook postrouting priority 100
        oifname "{OUTSIDE}" meta l4proto udp masquerade to :{ports[0]}-{ports[-1]}
        oifname "{OUTSIDE}" masquerade
    }}
}}
"""
        with tempfile.NamedTemporaryFile("w", prefix="ipsecd-nat-") as file:
            file.write(text)
            file.flush()
            self.namespace.run("nft", "-f", file.name)

    def forget_mappings(self) -> None:
        """As after its restart: the next packet of each flow makes a new mapping."""
        self.namespace.call(_flush_conntrack)


def _flush_conntrack() -> None:
    """struct nlmsghdr and nfgenmsg, of any family, without a filter: all entries of the namespace."""
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    header = struct.pack("=IHHII", 16 + len(body), _CTNETLINK_DELETE, _REQUEST_AND_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(5.0)
        netlink.send(header + body)
        (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    if error:
        raise LabError(f"the mappings can't be flushed: error {-error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NattedWire:
    """Two gateways with NATs between them, and the SPDs that fit."""

    gateways: Gateways
    left_nat: Nat | PacketNat
    left_pair: Pair = field(default=Pair())
    """For the left gateway's SPD: what it knows."""
    right_pair: Pair = field(default=Pair())
    other: Namespace | None = None


@contextlib.contextmanager
def natted(*, both: bool = False, transport: bool = False, with_other: bool = False) -> Iterator[NattedWire]:
    """Left behind a NAT, or both, or left and another one behind the same."""
    with contextlib.ExitStack() as stack:
        left, left_nat, right = (stack.enter_context(Namespace(name)) for name in ("left", "left-nat", "right"))
        own_nat = not can_masquerade(left_nat)
        right_nat = stack.enter_context(Namespace("right-nat")) if both else None
        join(
            End(namespace=left, interface=WIRE, addresses=(f"{LEFT}/24",)),
            End(namespace=left_nat, interface=INSIDE, addresses=("192.168.9.254/24",)),
        )
        join(
            End(
                namespace=left_nat,
                interface=OUTSIDE,
                addresses=("10.9.0.250/24" if own_nat else f"{LEFT_PUBLIC}/24",),
            ),
            End(
                namespace=right_nat or right,
                interface=OUTSIDE if both else WIRE,
                addresses=("10.9.0.251/24" if both and own_nat else f"{RIGHT_PUBLIC if both else RIGHT}/24",),
            ),
        )
        if right_nat is not None:
            join(
                End(namespace=right_nat, interface=INSIDE, addresses=("192.168.8.254/24",)),
                End(namespace=right, interface=WIRE, addresses=(f"{RIGHT_BEHIND}/24",)),
            )
        other = stack.enter_context(_other_behind(left_nat)) if with_other else None
        _route(left, "10.1.0.1", "10.2.0.0/24", "192.168.9.254")
        _route(right, "10.2.0.1", "10.1.0.0/24", "192.168.8.254" if both else LEFT_PUBLIC)
        for gateway, via in ((left, "192.168.9.254"), *(((right, "192.168.8.254"),) if both else ())):
            gateway.ip("route", "add", "default", "via", via)
        nats = [stack.enter_context(_nat(left_nat, LEFT_PUBLIC, own=own_nat))]
        if right_nat is not None:
            nats.append(stack.enter_context(_nat(right_nat, RIGHT_PUBLIC, own=own_nat)))
            nats[1].forward_ike_to(RIGHT_BEHIND)
        for nat in nats:
            nat.masquerade(FIRST_PORTS)
        yield NattedWire(
            gateways=Gateways(left=left, right=right),
            left_nat=nats[0],
            left_pair=_pair(LEFT, RIGHT_PUBLIC if both else RIGHT, transport),
            right_pair=_pair(LEFT_PUBLIC, RIGHT_BEHIND if both else RIGHT, transport),
            other=other,
        )


def can_masquerade(namespace: Namespace) -> bool:
    """Whether there is nft, and a kernel that does what it says."""
    try:
        Nat(namespace).masquerade(FIRST_PORTS)
    except (LabError, OSError):
        return False
    return True


@contextlib.contextmanager
def _nat(namespace: Namespace, public: str, *, own: bool) -> Iterator[Nat | PacketNat]:
    if not own:
        namespace.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        yield Nat(namespace)
        return
    nat = PacketNat(namespace, public=public, inside=(INSIDE, OTHER_INSIDE))
    with nat.running():
        yield nat


@contextlib.contextmanager
def _other_behind(nat: Namespace) -> Iterator[Namespace]:
    with Namespace("other") as other:
        join(
            End(namespace=other, interface=WIRE, addresses=(f"{OTHER}/24",)),
            End(namespace=nat, interface=OTHER_INSIDE, addresses=("192.168.7.254/24",)),
        )
        _route(other, "10.3.0.1", "10.2.0.0/24", "192.168.7.254")
        other.ip("route", "add", "default", "via", "192.168.7.254")
        yield other


def _route(gateway: Namespace, own: str, net: str, via: str) -> None:
    add_addresses(End(namespace=gateway, interface="lo", addresses=(f"{own}/24",)))
    gateway.ip("route", "add", net, "via", via, "src", own)


def _pair(left: str, right: str, transport: bool) -> Pair:
    """The pair as one side sees it: its own address, and the other's public one."""
    return Pair(
        left=Side(identity=LEFT_ID, outer=left, inner=f"{left}/32" if transport else "10.1.0.0/24"),
        right=Side(identity=RIGHT_ID, outer=right, inner=f"{right}/32" if transport else "10.2.0.0/24"),
        mode="transport" if transport else "tunnel",
    )
