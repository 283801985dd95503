"""What a new policy changes in the old one, rule by rule: SAs of modified rules go, all others stay (ipsecd(8))."""

from ipc.messages import MAX_NAMED, PolicyChanges
from ipc.peers import goes_on
from ipc.value import value
from policy_loader.compile import Policy


@value
class PolicyDiff:
    """Names of rules, each in the order of its policy. `changed` and `removed` lose their SAs; `kept` do not."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    peers: tuple[str, ...]
    """Peers that are gone or changed: their IKE SAs go, whatever becomes of the rules."""
    renewed: tuple[str, ...] = ()
    """Peers with whom another key is shared: their IKE SAs are made anew, and the old ones stay until then."""

    def __str__(self) -> str:
        return (
            f"{len(self.added)} rules added, {len(self.changed)} changed, {len(self.removed)} removed, "
            f"{len(self.kept)} kept"
        )

    def told(self) -> PolicyChanges:
        """The same for the supervisor, with no more names than a message holds."""
        return PolicyChanges(
            added=self.added[:MAX_NAMED],
            changed=self.changed[:MAX_NAMED],
            removed=self.removed[:MAX_NAMED],
            peers=self.peers[:MAX_NAMED],
            added_count=len(self.added),
            changed_count=len(self.changed),
            removed_count=len(self.removed),
            kept_count=len(self.kept),
            peers_count=len(self.peers),
            renewed=self.renewed[:MAX_NAMED],
            renewed_count=len(self.renewed),
        )


def diff(old: Policy | None, new: Policy, other_psks: tuple[str, ...] = ()) -> PolicyDiff:
    """From `old` (None: from nothing) to `new`. A rule with the id of an old one is kept, renamed or moved or not.

    `other_psks`: peers with whom another key is shared.
    """
    old_names = {rule.rule_id: rule.name for rule in old.kernel_rules} if old else {}
    new_peers = {peer.name: peer for peer in new.peers}
    new_ids = {rule.rule_id for rule in new.kernel_rules}
    gone = {name for rule_id, name in old_names.items() if rule_id not in new_ids}
    fresh = [rule.name for rule in new.kernel_rules if rule.rule_id not in old_names]
    changed = tuple(name for name in fresh if name in gone)
    removed = gone - set(changed)
    peers = tuple(peer.name for peer in (old.peers if old else ()) if not goes_on(peer, new_peers.get(peer.name)))
    return PolicyDiff(
        added=tuple(name for name in fresh if name not in gone),
        changed=changed,
        removed=tuple(name for name in old_names.values() if name in removed),
        kept=tuple(rule.name for rule in new.kernel_rules if rule.rule_id in old_names),
        peers=peers,
        renewed=tuple(name for name in other_psks if name not in peers),
    )
