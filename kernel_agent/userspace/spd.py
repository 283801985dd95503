"""The Security Policy Database as the data path searches it (RFC 4301 section 4.4.1). Pure."""

from collections.abc import Iterable

from ipc.messages import AddPolicy, BeginPolicy, CommitPolicy, KernelRule
from ipc.types import ANY_PORT, PortRange, Prefix
from kernel_agent.userspace.packet import PacketFields

_ADDRESS_BITS = {4: 32, 6: 128}


class PolicyRefused(Exception):
    """The messages of a policy do not make a whole one."""


class _Entry:
    """A rule with its prefixes as (version, bits to drop, number)."""

    __slots__ = ("local", "next_layers", "rule")

    def __init__(self, rule: KernelRule) -> None:
        self.rule = rule
        self.next_layers = rule.next_layers
        self.local = [_shifted(prefix) for prefix in rule.local]

    def matches(self, packet: PacketFields) -> bool:
        """Everything but the remote address, which led here."""
        return any(
            version == packet.version and packet.source >> drop == number for version, drop, number in self.local
        ) and any(
            layer.protocol in (0, packet.protocol)
            and _port_in(layer.local_port, packet.source_port)
            and _port_in(layer.remote_port, packet.destination_port)
            for layer in self.next_layers
        )


class Spd:
    """Rules in order, for packets that leave: their source is our side. Immutable.

    Rules are found by their remote prefix: for each prefix length in use one look into a table.
    """

    def __init__(self, rules: Iterable[KernelRule] = ()) -> None:
        self.rules: dict[int, KernelRule] = {}
        self._tables: dict[int, dict[int, dict[int, list[_Entry]]]] = {4: {}, 6: {}}
        for rule in sorted(rules, key=lambda one: one.position):
            self.rules[rule.rule_id] = rule
            entry = _Entry(rule)
            for version, drop, number in {_shifted(prefix) for prefix in rule.remote}:
                self._tables[version].setdefault(drop, {}).setdefault(number, []).append(entry)

    def lookup(self, packet: PacketFields) -> KernelRule | None:
        """The first rule that matches `packet`, None if none does."""
        first: KernelRule | None = None
        for drop, table in self._tables[packet.version].items():
            for entry in table.get(packet.destination >> drop, ()):
                if first is not None and entry.rule.position >= first.position:
                    break
                if entry.matches(packet):
                    first = entry.rule
                    break
        return first


class PolicyReader:
    """Puts the messages of a policy together. What is not whole is never enforced."""

    def __init__(self) -> None:
        self._generation: int | None = None
        self._rules: list[KernelRule] = []

    def begin(self, message: BeginPolicy) -> None:
        """A policy begins; one that was not committed is forgotten."""
        self._generation = message.generation
        self._rules = []

    def add(self, message: AddPolicy) -> None:
        """Some rules; PolicyRefused if no such policy has begun."""
        self._expect(message.generation)
        self._rules += message.rules

    def commit(self, message: CommitPolicy) -> Spd:
        """The whole policy; PolicyRefused if it is not."""
        self._expect(message.generation)
        rules, self._rules, self._generation = self._rules, [], None
        if len(rules) != message.rules or len({rule.rule_id for rule in rules}) != len(rules):
            raise PolicyRefused(f"policy {message.generation}: {len(rules)} rules, not {message.rules}, or one twice")
        return Spd(rules)

    def _expect(self, generation: int) -> None:
        if generation != self._generation:
            raise PolicyRefused(f"policy {generation} has not begun")


def _shifted(prefix: Prefix) -> tuple[int, int, int]:
    version = prefix.address.version
    drop = _ADDRESS_BITS[version] - prefix.length
    return version, drop, int(prefix.address) >> drop


def _port_in(ports: PortRange, port: int | None) -> bool:
    """A port that can't be known is in the full range only (RFC 4301 section 4.4.1.1: ANY includes OPAQUE)."""
    if port is None:
        return ports == ANY_PORT
    return ports.first <= port <= ports.last
