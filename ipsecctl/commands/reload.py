"""`ipsecctl reload`: has the policy file read again, or says what that would change."""

import argparse
import dataclasses
import json

from ipc import messages as m
from ipc.patience import for_policy_file
from ipsecctl import lock_file, lockout, own_ssh, saved
from ipsecctl.client import ask
from ipsecctl.errors import CommandError
from ipsecctl.output import count, table

RELOAD_WITHIN_S = 130.0
LONGEST_LIST = 20
"""Names and SAs that people are shown of a plan; the JSON has more."""


def run(options: argparse.Namespace) -> int:
    """Reloads; 0 if the file is in force now, or, in a dry run, would be."""
    if not lock_file.look(options.instance).held:
        raise CommandError("IPsec is not running")
    if not options.dry_run:
        own_ssh.refuse(lockout.by_reload(options.instance), allowed=options.cut_me_off or options.confirm > 0)
    within_s = for_policy_file(RELOAD_WITHIN_S, saved.spd_path_of(options.instance))
    done = ask(options.instance, m.ReloadCommand(dry_run=options.dry_run, confirm_s=options.confirm), within_s)
    if options.json:
        print(json.dumps(dataclasses.asdict(done), indent=2))
        return done.exit_code
    for line in done.lines:
        print(f"warning: {line}" if done.plan is not None else line)
    if done.plan is not None:
        print("\n".join(plan_lines(done.plan)))
    return done.exit_code


def plan_lines(plan: m.ReloadPlan) -> list[str]:
    """A plan for people."""
    changes = plan.changes
    rows = [
        ("added", changes.added_count, changes.added),
        ("changed", changes.changed_count, changes.changed),
        ("removed", changes.removed_count, changes.removed),
        ("unchanged", changes.kept_count, ()),
    ]
    lines = table(("rules", "", ""), [(kind, str(count), _named(names, count)) for kind, count, names in rows])
    if changes.peers_count:
        lines += ["", f"peers that change or go: {_named(changes.peers, changes.peers_count)}"]
    if changes.renewed_count:
        named = _named(changes.renewed, changes.renewed_count)
        lines += ["", f"peers with another pre-shared key, made anew with it before what stands ends: {named}"]
    if not plan.cut_count:
        return [*lines, "", "no SA would be cut; nothing was changed"]
    cut = [(one.peer, one.rule or "(the IKE SA)", one.spi_in, one.spi_out) for one in plan.cut[:LONGEST_LIST]]
    lines += ["", f"{count(plan.cut_count, 'SA')} would be cut:", *table(("peer", "rule", "spi in", "spi out"), cut)]
    if len(cut) < plan.cut_count:
        lines.append(f"and {plan.cut_count - len(cut)} more")
    return [*lines, "", "nothing was changed"]


def _named(names: tuple[str, ...], count: int) -> str:
    shown = names[:LONGEST_LIST]
    return ", ".join(shown) + (f", and {count - len(shown)} more" if 0 < len(shown) < count else "")
