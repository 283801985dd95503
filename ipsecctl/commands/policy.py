"""`ipsecctl policy`: the policies that were in force, and the way back to one of them."""

import argparse
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass

from ipc.generations import Generation, backup_of, generations
from ipsecctl import exit_codes, lock_file, saved
from ipsecctl.errors import CommandError
from ipsecctl.output import table

ROLLBACK_WITHIN_S = 130.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A generation, for people and programs."""

    number: int
    in_force_at: str
    """UTC."""
    sha256: str
    bytes: int
    templates: bool
    same_as: tuple[str, ...]
    """Which present files have the same content."""
    path: str


def run(options: argparse.Namespace) -> int:
    """Shows, or rolls back; 0 if that was done."""
    if options.action == "history":
        return _history(os.path.abspath(options.spd or saved.spd_path_of(options.instance)), as_json=options.json)
    if options.number is None or options.number < 1:
        raise CommandError("rollback wants the number of a generation: see `ipsecctl policy history`", exit_codes.USAGE)
    return _roll_back(options)


def _history(spd_path: str, *, as_json: bool) -> int:
    try:
        kept = [_kept(one, spd_path) for one in generations(spd_path)]
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    if as_json:
        print(json.dumps([asdict(one) for one in kept], indent=2))
        return exit_codes.OK
    if not kept:
        print(f"no policy of {spd_path} is kept yet")
        return exit_codes.OK
    header = ("number", "in force since", "sha256", "bytes", "same as")
    rows = [(str(one.number), one.in_force_at, one.sha256[:16], str(one.bytes), ", ".join(one.same_as)) for one in kept]
    print("\n".join(table(header, rows)))
    return exit_codes.OK


def _kept(generation: Generation, spd_path: str) -> Kept:
    content = _content(generation.path)
    present = {path: _content(path) for path in (spd_path, backup_of(spd_path)) if os.path.exists(path)}
    return Kept(
        number=generation.number,
        in_force_at=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(generation.in_force_at)),
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        templates=os.path.exists(generation.templates_path),
        same_as=tuple(path for path, other in present.items() if other == content),
        path=generation.path,
    )


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _roll_back(options: argparse.Namespace) -> int:
    # Here, not above: a history needs no supervisor.
    from ipc import messages as m
    from ipc.patience import for_policy_file
    from ipsecctl import lockout, own_ssh
    from ipsecctl.client import ask

    if not lock_file.look(options.instance).held:
        raise CommandError("IPsec is not running")
    running = saved.spd_path_of(options.instance)
    if options.spd is not None and os.path.abspath(options.spd) != running:
        raise CommandError(f"what runs is a policy of {running}, not of {os.path.abspath(options.spd)}")
    kept = {one.number: one.path for one in generations(running)}
    if options.number in kept:
        cut = lockout.by_reload(options.instance, kept[options.number])
        own_ssh.refuse(cut, allowed=options.cut_me_off or options.confirm > 0)
    command = m.RollbackCommand(generation=options.number, confirm_s=options.confirm)
    within_s = for_policy_file(ROLLBACK_WITHIN_S, kept.get(options.number, running))
    done = ask(options.instance, command, within_s)
    for line in done.lines:
        print(line)
    return done.exit_code
