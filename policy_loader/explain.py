"""What the SPD does with one packet, as the kernel does it: the first match decides (RFC 4301 section 4.4.1).

A packet that leaves is looked up by its own addresses, one that comes in with local and remote turned round. One that
is forwarded is looked up twice, as Linux does it: first as something that came in, then as something that leaves.

What a question leaves out (a source port, say) is not guessed: a rule that hangs on it may decide, and is named so.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ipc.messages import KernelRule
from ipc.types import ANY_PORT, Action, Direction, IpAddress, NextLayer, PortRange, Prefix, Unmatched
from ipc.value import value
from policy_loader.compile import Policy

ICMP, ICMPV6, UDP, ESP = 1, 58, 17, 50
IKE_PORTS = (500, 4500)
_NEIGHBOUR_DISCOVERY = range(133, 138)
"""ICMPv6 types (RFC 4861 section 4)."""


@value
class Packet:
    """A packet in clear, as it stands on a wire; None and "" are what is not said of it."""

    direction: Direction
    source: IpAddress
    destination: IpAddress
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int = 0
    interface: str = ""
    """Where it comes in; where it goes out, if this host itself sends it."""
    leaves_by: str = ""
    """Where it goes out, if it is forwarded."""


class Reason(enum.Enum):
    """Why a packet is treated as it is."""

    RULE = "rule"
    UNMATCHED = "unmatched"
    """No rule matches: [setup] unmatched says what is done."""
    AS_IT_LEAVES = "as it leaves"
    """No rule is about it as it comes in, so that what is done with it as it leaves decides."""
    LEFT_TUNNEL = "left a tunnel"
    """No rule is about it as it leaves; that it came by the SA it should is enough."""
    LED_ASIDE = "led aside"
    """The user-space data path leads it to the tunnel of the rule, and that does not take it: the way is chosen by
    addresses, protocol and ports, not by ICMP types."""
    LOOPBACK = "loopback"
    """The kernel asks no policy about it."""
    NEIGHBOUR_DISCOVERY = "neighbour discovery"
    """Passes before all rules, but is not forwarded: no host on the link could be reached without it."""
    OUR_OWN = "IKE and ESP"
    """The sockets of ipsecd have a policy of their own."""


@value
class Step:
    """One look into the SPD."""

    direction: Direction
    """FORWARD, then OUT, for a forwarded packet."""
    action: Action
    """PROTECT: what leaves is encrypted, what came in clear is dropped."""
    reason: Reason
    rule: KernelRule | None
    """That of the file which decides."""
    shadowed: tuple[KernelRule, ...] = ()
    """Later rules that match the packet as well."""
    possible: tuple[KernelRule, ...] = ()
    """Earlier rules that decide instead if what was not said of the packet fits them."""


@value
class Decision:
    """What becomes of a packet; the steps end with the one that discards it."""

    steps: tuple[Step, ...]

    @property
    def deciding(self) -> Step:
        """The step that matters most: the one that discards, else one that protects, else the first."""
        for action in (Action.DISCARD, Action.PROTECT):
            for step in self.steps:
                if step.action is action:
                    return step
        return self.steps[0]

    @property
    def action(self) -> Action:
        """What is done with the packet in the end."""
        return self.deciding.action

    @property
    def certain(self) -> bool:
        """Whether no more needs to be said of the packet to know."""
        return not any(step.possible for step in self.steps)


def decide(policy: Policy, packet: Packet, *, secure: bool = False, userspace: bool = False) -> Decision:
    """What is done with `packet` under `policy`, whether or not it is in force.

    In secure mode what no rule matches is dropped, whatever the policy says of it. With the user-space data path what
    leaves is led to a tunnel before its interface is known, and whatever its ICMP type.
    """
    unmatched = Unmatched.DISCARD if secure else policy.unmatched
    rules = [rule for rule in policy.kernel_rules if not rule.unmatched]
    if packet.direction is not Direction.FORWARD:
        return Decision(steps=(_look_up(rules, unmatched, packet, packet.direction, userspace),))
    inward = _look_up(rules, unmatched, packet, Direction.FORWARD, userspace)
    if inward.reason is Reason.UNMATCHED and _may_enter_tunnel(rules, packet):
        inward = replace(inward, action=Action.BYPASS, reason=Reason.AS_IT_LEAVES)
    if inward.action is Action.DISCARD:
        return Decision(steps=(inward,))
    outward = _look_up(rules, unmatched, packet, Direction.OUT, userspace)
    if outward.reason is Reason.UNMATCHED and inward.action is Action.PROTECT:
        outward = replace(outward, action=Action.BYPASS, reason=Reason.LEFT_TUNNEL)
    return Decision(steps=(inward, outward))


def _may_enter_tunnel(rules: Sequence[KernelRule], packet: Packet) -> bool:
    """Whether a rule protects packets of this IP version."""
    version = packet.source.version
    return any(
        prefix.address.version == version for rule in rules if rule.action is Action.PROTECT for prefix in rule.local
    )


def _look_up(
    rules: Sequence[KernelRule], unmatched: Unmatched, packet: Packet, direction: Direction, userspace: bool
) -> Step:
    outward = direction is Direction.OUT
    seen = _Seen(packet, outward=outward, led=outward and userspace)
    exempt = _exempt(packet, seen)
    if exempt is not None:
        return Step(direction=direction, action=Action.BYPASS, reason=exempt, rule=None)
    possible: list[KernelRule] = []
    matching: list[KernelRule] = []
    for rule in rules:
        fit = seen.fits(rule)
        if fit is None and not matching:
            possible.append(rule)
        elif fit:
            matching.append(rule)
        elif not matching and seen.is_led_aside_by(rule):
            return Step(
                direction=direction,
                action=Action.DISCARD,
                reason=Reason.LED_ASIDE,
                rule=rule,
                possible=tuple(possible),
            )
    if not matching:
        action = Action.DISCARD if unmatched is Unmatched.DISCARD else Action.BYPASS
        return Step(direction=direction, action=action, reason=Reason.UNMATCHED, rule=None, possible=tuple(possible))
    return Step(
        direction=direction,
        action=matching[0].action,
        reason=Reason.RULE,
        rule=matching[0],
        shadowed=tuple(matching[1:]),
        possible=tuple(possible),
    )


def _exempt(packet: Packet, seen: "_Seen") -> Reason | None:
    if packet.source.is_loopback or packet.destination.is_loopback:
        return Reason.LOOPBACK
    if packet.direction is Direction.FORWARD:
        return None
    if packet.protocol == ICMPV6 and packet.icmp_type in _NEIGHBOUR_DISCOVERY:
        return Reason.NEIGHBOUR_DISCOVERY
    if packet.protocol == ESP or (packet.protocol == UDP and seen.local_port in IKE_PORTS):
        return Reason.OUR_OWN
    return None


class _Seen:
    """A packet with its ends told apart, local and remote."""

    def __init__(self, packet: Packet, *, outward: bool, led: bool) -> None:
        ends = (packet.source, packet.destination)
        ports = (packet.source_port, packet.destination_port)
        self._local, self._remote = ends if outward else ends[::-1]
        self.local_port, self._remote_port = ports if outward else ports[::-1]
        self._packet = packet
        self._outward = outward
        self._led = led
        """The user-space data path takes it before the policies are asked."""

    def fits(self, rule: KernelRule) -> bool | None:
        """Whether `rule` matches; None if that hangs on what is not said of the packet."""
        if not (_holds(rule.local, self._local) and _holds(rule.remote, self._remote)):
            return False
        answers = (self._fits_interface(rule), self._fits_any(rule.next_layers))
        if False in answers:
            return False
        return None if None in answers else True

    def is_led_aside_by(self, rule: KernelRule) -> bool:
        """Whether it goes to the tunnel of a rule only because that is about other ICMP types."""
        if not self._led or rule.action is not Action.PROTECT or self._packet.icmp_type is None:
            return False
        if not (_holds(rule.local, self._local) and _holds(rule.remote, self._remote)):
            return False
        return any(layer.protocol == self._packet.protocol for layer in rule.next_layers)

    def _fits_interface(self, rule: KernelRule) -> bool | None:
        if not rule.interface or (self._led and rule.action is Action.PROTECT):
            return True
        forwarded = self._packet.direction is Direction.FORWARD
        if self._outward and self._local.version == 6:
            # The kernel asks before it knows by which interface its own packets leave: let none out in clear for that.
            if rule.action is not Action.BYPASS:
                return True
            if not forwarded:
                return False
        interface = self._packet.leaves_by if self._outward and forwarded else self._packet.interface
        return rule.interface == interface if interface else None

    def _fits_any(self, layers: Iterable[NextLayer]) -> bool | None:
        answers = {self._fits_layer(layer) for layer in layers}
        if True in answers:
            return True
        return None if None in answers else False

    def _fits_layer(self, layer: NextLayer) -> bool | None:
        answers = (self._fits_protocol(layer), *self._fit_ports(layer))
        if False in answers:
            return False
        return None if None in answers else True

    def _fits_protocol(self, layer: NextLayer) -> bool | None:
        if not layer.protocol:
            return True
        return None if self._packet.protocol is None else layer.protocol == self._packet.protocol

    def _fit_ports(self, layer: NextLayer) -> tuple[bool | None, ...]:
        if layer.protocol in (ICMP, ICMPV6):
            # One range for both sides (RFC 7296 section 3.13.1): the side that says something says it.
            said = layer.local_port if layer.local_port != ANY_PORT else layer.remote_port
            kind = self._packet.icmp_type
            return (_in(said, None if kind is None else kind << 8 | self._packet.icmp_code),)
        return _in(layer.local_port, self.local_port), _in(layer.remote_port, self._remote_port)


def _in(ports: PortRange, port: int | None) -> bool | None:
    if ports == ANY_PORT:
        return True
    return None if port is None else ports.first <= port <= ports.last


def _holds(prefixes: Sequence[Prefix], address: IpAddress) -> bool:
    version, width, bits = address.version, address.max_prefixlen, int(address)
    for prefix in prefixes:
        if prefix.address.version == version and not (int(prefix.address) ^ bits) >> (width - prefix.length):
            return True
    return False
