"""Policies of single outbound SAs, for rules whose peer may be anywhere.

The template of such a rule has no address to which a tunnel could go, and XFRM finds no SA by it. So each outbound SA
brings policies of its own: for the selectors that were negotiated, with the addresses and the SPI of just this SA,
ahead of the rule's, and gone with the SA. Many peers behind one rule are told apart by them, also behind one NAT.
Policies outlive the agent, as SAs do: what is there is found again. Their selectors carry a `user`, by which they are
told from those of the rules.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ipc.messages import KernelRule, Sa, SaName
from ipc.types import ANY_PORT, Action, Direction, Mode, PortRange, Prefix, TrafficSelector
from ipc.value import value
from kernel_agent.xfrm import messages, structs
from kernel_agent.xfrm.constants import PolicyAction, XfrmMessage
from kernel_agent.xfrm.messages import PolicyEntry
from kernel_agent.xfrm.netlink import Request, RequestSocket
from kernel_agent.xfrm.policies import kernel_policies
from kernel_agent.xfrm.policy_table import PolicyTable

AHEAD = 2
"""By so much the priority of such a policy is less than that of the rule's own."""
MOST_PER_SA = 256


@value
class _Claim:
    """An SA that wants the packets of a selector."""

    name: SaName
    rule_id: int
    template: bytes


class SaPolicies:
    """The policies of SAs in one network namespace. The newest SA that wants a selector has it."""

    def __init__(self, requests: RequestSocket, table: PolicyTable) -> None:
        self._requests = requests
        self._table = table
        self._rules: dict[int, KernelRule] = {}
        self._interfaces: Mapping[str, int] = {}
        self._priorities: dict[int, int] = {}
        """By rule, of its own first policy."""
        self._claims: dict[bytes, list[_Claim]] | None = None
        """By the key of the policy, the newest last; None before the kernel was asked."""
        self._serial = messages.FIRST_SA_SERIAL

    def follow(self, rules: Iterable[KernelRule], interfaces: Mapping[str, int]) -> None:
        """A policy was installed: finds the places of its rules. OSError if the kernel does not say."""
        self._rules = {rule.rule_id: rule for rule in rules if is_from_anywhere(rule)}
        self._interfaces = interfaces
        if self._claims is None:
            self._find_again()
        before, self._priorities = self._priorities, {}
        if not self._rules:
            return
        keys = {rule_id: kernel_policies((rule,), interfaces).ruled[0][0].key for rule_id, rule in self._rules.items()}
        found = self._table.priorities()
        self._priorities = {rule_id: found[key] for rule_id, key in keys.items() if key in found}
        moved = {rule_id for rule_id, number in self._priorities.items() if before.get(rule_id) != number}
        self._write([key for key, claims in self._all().items() if claims[-1].rule_id in moved])

    def add(self, sas: Iterable[Sa]) -> str:
        """Adds what these SAs need; why it can't be, empty if it was. Those that need nothing are passed by."""
        fresh: list[bytes] = []
        for sa in sas:
            rule = self._rules.get(sa.rule_id)
            if rule is None or sa.direction is not Direction.OUT:
                continue
            wanted = dict(_wanted(sa, rule, self._interfaces))
            if len(wanted) > MOST_PER_SA:
                return f"its selectors take {len(wanted)} policies, more than {MOST_PER_SA}"
            for key, claim in wanted.items():
                claims = self._all().setdefault(key, [])
                if claim not in claims:
                    claims.append(claim)
                    fresh.append(key)
        return self._write(fresh)

    def remove(self, names: Iterable[SaName]) -> None:
        """Removes what these SAs had; an older SA with the same selector has it again."""
        gone = frozenset(names)
        changed: list[bytes] = []
        for key, claims in list(self._all().items()):
            left = [claim for claim in claims if claim.name not in gone]
            if left == claims:
                continue
            if not left:
                del self._all()[key]
                # By the selector, which is ours alone by its `user`.
                self._requests.transact([Request(XfrmMessage.DELPOLICY, messages.delete_policy(key, 0))])
                continue
            self._all()[key] = left
            if left[-1] != claims[-1]:
                changed.append(key)
        self._write(changed)

    def _all(self) -> dict[bytes, list[_Claim]]:
        if self._claims is None:
            self._claims = {}
        return self._claims

    def _find_again(self) -> None:
        """What an agent before us has left."""
        self._claims = {}
        for key, entry in self._table.of_sas().items():
            target = structs.template_target(entry.template)
            name = SaName(spi=target.spi, destination=target.destination)
            claim = _Claim(name=name, rule_id=messages.rule_id_of(target.reqid), template=entry.template)
            self._claims[key] = [claim]
            self._serial = max(self._serial, messages.serial_of(entry.index) + 1)

    def _write(self, keys: Iterable[bytes]) -> str:
        requests = []
        for key in keys:
            claim = self._all()[key][-1]
            priority = self._priorities.get(claim.rule_id)
            if priority is None:
                continue
            index = messages.policy_index(self._serial, Direction.OUT)
            self._serial = messages.FIRST_SA_SERIAL + (self._serial + 1) % messages.FIRST_SA_SERIAL
            entry = PolicyEntry(index, priority - AHEAD, PolicyAction.ALLOW, claim.template)
            # It takes the place of what has the same selector, under that one's index.
            requests.append(Request(XfrmMessage.UPDPOLICY, messages.pack_policy(key, entry, index)))
        for error in self._requests.transact(requests):
            if error is not None:
                return f"the kernel refused the policy of the SA: {error.strerror}"
        return ""


def is_from_anywhere(rule: KernelRule) -> bool:
    """Whether the rule's SAs need policies of their own. In transport mode XFRM goes by the packet's own addresses."""
    return rule.action is Action.PROTECT and rule.mode is Mode.TUNNEL and rule.peer_address is None


def _wanted(sa: Sa, rule: KernelRule, interfaces: Mapping[str, int]) -> Iterator[tuple[bytes, _Claim]]:
    """The policies of an SA, as its rule would have them if it said no more than the SA."""
    name = SaName(spi=sa.spi, destination=sa.destination)
    for local in sa.local:
        for remote in sa.remote:
            if local.protocol and remote.protocol and local.protocol != remote.protocol:
                continue
            narrowed = replace(
                rule,
                protocol=local.protocol or remote.protocol,
                local=_prefixes(local),
                remote=_prefixes(remote),
                local_port=_ports(local),
                remote_port=_ports(remote),
                also=(),
                local_address=sa.source,
                peer_address=sa.destination,
            )
            for policy in kernel_policies((narrowed,), interfaces).ruled[0]:
                if policy.direction is Direction.OUT:
                    selector = structs.with_user(policy.selector, messages.SA_POLICY_USER)
                    template = structs.with_spi(policy.template, sa.spi)
                    key = replace(policy, selector=selector).key
                    yield key, _Claim(name=name, rule_id=rule.rule_id, template=template)


def _prefixes(selector: TrafficSelector) -> tuple[Prefix, ...]:
    networks = ipaddress.summarize_address_range(selector.start_address, selector.end_address)
    return tuple(Prefix(address=network.network_address, length=network.prefixlen) for network in networks)


def _ports(selector: TrafficSelector) -> PortRange:
    ports = PortRange(first=selector.start_port, last=selector.end_port)
    return ports if selector.protocol else ANY_PORT
