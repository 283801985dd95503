"""The kernel's policy table: our policies read, and changed all or nothing."""

import errno
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from ipc.types import Direction
from ipc.value import value
from kernel_agent import ranks
from kernel_agent.data_path import DataPathError
from kernel_agent.last_result import LastOfEach, LastOfEqual, LastResult
from kernel_agent.reconcile import PolicyDiff, policy_diff
from kernel_agent.xfrm import messages
from kernel_agent.xfrm.constants import SpdAttribute, XfrmMessage
from kernel_agent.xfrm.messages import InstalledPolicy, Policy, PolicyEntry
from kernel_agent.xfrm.netlink import NetlinkError, Request, RequestSocket
from kernel_agent.xfrm.policies import PRIORITIES_PER_RULE, PolicyPlan

THRESHOLDS_FROM_POLICIES = 1000
"""Below this many policies the kernel's own hash thresholds are good enough."""
MOST_TRIED = 1000
"""Policies that a check writes before it is content with one of each shape."""
LONGEST_CHAIN = 256
"""Policies under one hash; more make each insert slow."""
_DUMP_QUESTION = bytes(64)
_FAMILY_BYTES = {4: 4, 6: 16}


@value
class _Tables:
    """What the kernel has: our policies of rules and those of single SAs, and the keys of all that are not ours."""

    ours: Mapping[bytes, PolicyEntry]
    of_sas: Mapping[bytes, PolicyEntry]
    foreign: Collection[bytes]


_Keyed = tuple[Policy, bytes]
"""A policy and its key."""


class PolicyTable:
    """The tagged policies of one network namespace."""

    def __init__(self, requests: RequestSocket) -> None:
        self._requests = requests
        self._entries = LastOfEqual(messages.PolicyReader().read)
        self._tables = LastResult(_tables_of)
        self._keyed: LastOfEach[tuple[Policy, ...], tuple[_Keyed, ...]] = LastOfEach(_with_keys)
        self._wanted = LastResult(self._ranked)
        self._diff = LastResult(policy_diff)
        self._lengths: Counter[bytes] = Counter()
        """Prefix lengths of the policies for which the thresholds were chosen ..."""
        self._thresholds: dict[int, tuple[int, int]] = {}
        """... and which these are, by IP version."""

    def present(self) -> list[InstalledPolicy]:
        """All policies that carry our tag."""
        bodies = self._requests.dump_bodies(XfrmMessage.GETPOLICY, _DUMP_QUESTION)
        return [one for one in map(messages.tagged_policy, bodies) if one is not None]

    def install(self, plan: PolicyPlan) -> Mapping[bytes, PolicyEntry]:
        """Makes the plan our policies, touching only what differs; returns what there was, for `restore`.

        DataPathError, and nothing has changed.
        """
        before = self._read().ours
        wanted = self._wanted.of(plan, before)
        self._lead_to(wanted, before)
        return before

    def priorities(self) -> dict[bytes, int]:
        """Of the policies of rules, by key."""
        return {key: entry.priority for key, entry in self._read().ours.items()}

    def of_sas(self) -> Mapping[bytes, PolicyEntry]:
        """The policies of single SAs (`sa_policies`), which `install` leaves alone."""
        return self._read().of_sas

    def restore(self, before: Mapping[bytes, PolicyEntry]) -> None:
        """Back to what `install` returned; DataPathError where the kernel does not let us."""
        self._apply(before, self._read().ours)

    def differences(self, plan: PolicyPlan) -> tuple[str, ...]:
        """What `install` would mend, in words, with an example of each kind; empty if nothing."""
        present = self._read().ours
        diff = self._diff.of(self._wanted.of(plan, present), present)
        to_write = (*diff.first, *diff.then, *diff.last)
        kinds = (
            ("missing", [key for key in to_write if key not in present]),
            ("changed", [key for key in to_write if key in present]),
            ("not of this policy", diff.remove),
        )
        return tuple(f"{len(keys)} {what}, such as {messages.describe_key(keys[0])}" for what, keys in kinds if keys)

    def check(self, plan: PolicyPlan, scratch: "PolicyTable") -> int:
        """Has the kernel of `scratch`, where nothing else is, say whether it would take what is new; returns how much.

        Of very many new policies it is one of each shape: all but the addresses. DataPathError if it would not take
        them. `scratch` is empty afterwards.
        """
        tables = self._read()
        wanted = self._wanted.of(plan, tables.ours)
        diff = self._diff.of(wanted, tables.ours)
        fresh = (*diff.first, *diff.then, *diff.last)
        for key in fresh:
            if key in tables.foreign and key not in tables.ours:
                raise DataPathError(_in_the_way(key))
        tried = {key: wanted[key] for key in fresh}
        if len(tried) > MOST_TRIED:
            tried = {key: wanted[key] for key in {_shape(key, wanted[key]): key for key in fresh}.values()}
        try:
            scratch._apply(tried, {})
        finally:
            scratch.remove_all()
        return len(tried)

    def remove_all(self) -> int:
        """Removes every policy of ours; returns how many there were."""
        tables = self._read()
        present = {**tables.ours, **tables.of_sas}
        self._apply({}, present)
        if len(present) >= THRESHOLDS_FROM_POLICIES:
            for attribute, bits in ((SpdAttribute.IPV4_HTHRESH, 32), (SpdAttribute.IPV6_HTHRESH, 128)):
                body = messages.hash_thresholds(attribute, bits, bits)
                self._requests.execute([Request(XfrmMessage.NEWSPDINFO, body)])
        return len(present)

    def _read(self) -> _Tables:
        """All policies there are. Only what the kernel lists otherwise than the last time is worked on."""
        bodies = self._requests.dump_bodies(XfrmMessage.GETPOLICY, _DUMP_QUESTION)
        return self._tables.of(self._entries.of(bodies))

    def _ranked(self, plan: PolicyPlan, present: Mapping[bytes, PolicyEntry]) -> dict[bytes, PolicyEntry]:
        """The plan's policies by key, under priorities that stay as they are where they can. The first of a key counts.

        A policy that stands as it should is its own entry: of thousands, few differ.
        """
        wanted: dict[bytes, PolicyEntry] = {}
        for policy in plan.exempt:
            wanted.setdefault(policy.key, _entry(policy, 0))
        keyed = self._keyed.of(plan.ruled)
        try:
            numbers = ranks.assign([_present_rank(policies, present) for policies in keyed])
        except ValueError as error:
            raise DataPathError(str(error)) from None
        find = present.get
        for rank, policies in zip(numbers, keyed, strict=True):
            first = rank * PRIORITIES_PER_RULE
            for policy, key in policies:
                if key in wanted:
                    continue
                priority, old = first + policy.priority, find(key)
                if (
                    old is not None
                    and old.priority == priority
                    and old.action == policy.action
                    and old.template == policy.template
                ):
                    wanted[key] = old
                else:
                    wanted[key] = PolicyEntry(0, priority, policy.action, policy.template)
        for policy in plan.behind:
            wanted.setdefault(policy.key, _entry(policy, 0))
        return wanted

    def _lead_to(self, wanted: Mapping[bytes, PolicyEntry], before: Mapping[bytes, PolicyEntry]) -> None:
        diff = self._diff.of(wanted, before)
        if not diff:
            return
        self._set_thresholds(wanted)
        try:
            self._carry_out(diff, wanted, before)
        except DataPathError:
            self.restore(before)
            raise

    def _apply(self, wanted: Mapping[bytes, PolicyEntry], present: Mapping[bytes, PolicyEntry]) -> None:
        self._carry_out(policy_diff(wanted, present), wanted, present)

    def _carry_out(
        self, diff: PolicyDiff, wanted: Mapping[bytes, PolicyEntry], present: Mapping[bytes, PolicyEntry]
    ) -> None:
        keys = [*diff.first, *diff.then, *diff.last]
        requests: list[Request] = []
        serials = _free_serials(present.values())
        for key in keys:
            entry, old = wanted[key], present.get(key)
            kind = XfrmMessage.NEWPOLICY if old is None else XfrmMessage.UPDPOLICY
            index = messages.policy_index(next(serials), key[0]) if old is None else old.index
            requests.append(Request(kind, messages.pack_policy(key, entry, index)))
        for key in diff.remove:
            requests.append(Request(XfrmMessage.DELPOLICY, messages.delete_policy(key, present[key].index)))
        subjects = [*keys, *diff.remove]
        for number, error in enumerate(self._requests.transact(requests)):
            if error is None or (requests[number].kind == XfrmMessage.DELPOLICY and error.errno == errno.ENOENT):
                continue
            raise DataPathError(_why(subjects[number], error)) from error

    def _set_thresholds(self, wanted: Mapping[bytes, PolicyEntry]) -> None:
        """Has the kernel hash by the prefix lengths that most policies have: else it searches a list of them all."""
        if len(wanted) < THRESHOLDS_FROM_POLICIES:
            return
        lengths = Counter(key[:1] + key[41:45] for key in wanted)
        if lengths == self._lengths:
            return
        self._lengths = lengths
        for version, attribute in ((4, SpdAttribute.IPV4_HTHRESH), (6, SpdAttribute.IPV6_HTHRESH)):
            best = _best_thresholds(wanted, version)
            if best is not None and self._thresholds.get(version) != best:
                self._thresholds[version] = best
                self._requests.execute([Request(XfrmMessage.NEWSPDINFO, messages.hash_thresholds(attribute, *best))])


def _shape(key: bytes, entry: PolicyEntry) -> bytes:
    """All that the kernel looks at when it is given a policy: not the addresses, priority and reqid."""
    return key[:1] + key[33:] + bytes((entry.action,)) + entry.template[24:26] + entry.template[48:]


def _tables_of(entries: tuple[tuple[bytes, PolicyEntry], ...]) -> _Tables:
    ours: dict[bytes, PolicyEntry] = {}
    of_sas: dict[bytes, PolicyEntry] = {}
    foreign: set[bytes] = set()
    for key, entry in entries:
        if messages.is_tagged(entry.index):
            (of_sas if messages.is_of_sa(key) else ours)[key] = entry
        else:
            foreign.add(key)
    return _Tables(ours=ours, of_sas=of_sas, foreign=foreign)


def _with_keys(policies: tuple[Policy, ...]) -> tuple[_Keyed, ...]:
    return tuple([(policy, policy.key) for policy in policies])


def _present_rank(policies: Iterable[_Keyed], present: Mapping[bytes, PolicyEntry]) -> int:
    for _, key in policies:
        entry = present.get(key)
        rank = entry.priority // PRIORITIES_PER_RULE if entry is not None else 0
        return rank if rank <= ranks.LAST_RANK else 0
    return 0


def _entry(policy: Policy, priority: int) -> PolicyEntry:
    return PolicyEntry(0, priority + policy.priority, policy.action, policy.template)


def _free_serials(present: Iterable[PolicyEntry]) -> Iterator[int]:
    taken: set[int] = set()
    for serial in range(1, messages.MAX_SERIAL + 1):
        if serial == 1:
            taken = {messages.serial_of(entry.index) for entry in present}
        if serial not in taken:
            yield serial
    raise DataPathError(f"more than {messages.MAX_SERIAL} XFRM policies are needed")


def _best_thresholds(keys: Iterable[bytes], version: int) -> tuple[int, int] | None:
    """Bits of the local and of the remote prefix under which most outbound policies are hashed, in short chains."""
    size = _FAMILY_BYTES[version]
    family = messages.packed_family(version)
    ends: list[tuple[int, int, int, int]] = []
    for key in keys:
        if key[0] == Direction.OUT and key[41:43] == family:
            remote, local = key[1 : 1 + size], key[17 : 17 + size]
            ends.append((key[44], key[43], int.from_bytes(local, "big"), int.from_bytes(remote, "big")))
    if len(ends) * 3 < THRESHOLDS_FROM_POLICIES:
        return None
    best, most = None, 0
    for (local_bits, remote_bits), _ in Counter(end[:2] for end in ends).most_common(4):
        drop_local, drop_remote = size * 8 - local_bits, size * 8 - remote_bits
        chains = Counter(
            (local >> drop_local, remote >> drop_remote)
            for one, other, local, remote in ends
            if one >= local_bits and other >= remote_bits
        )
        if chains.total() > most and max(chains.values()) <= LONGEST_CHAIN:
            best, most = (local_bits, remote_bits), chains.total()
    return best


def _why(key: bytes, error: NetlinkError) -> str:
    if error.errno == errno.EEXIST:
        return _in_the_way(key)
    return f"the kernel refused the policy {messages.describe_key(key)}: {error.strerror}"


def _in_the_way(key: bytes) -> str:
    return f"a policy that is not ours is in the way: {messages.describe_key(key)}"
