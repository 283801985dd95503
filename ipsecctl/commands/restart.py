"""`ipsecctl restart`: stop, then start. A policy file that is not good is found before anything is stopped."""

import argparse
import os

from ipc.types import DataPathKind
from ipsecctl import exit_codes, lockout, own_ssh, saved
from ipsecctl.checkup import try_abilities
from ipsecctl.commands.start import begin_to_wait, say_what_waits, start
from ipsecctl.commands.stop import stop
from ipsecctl.errors import CommandError
from ipsecctl.policy_check import check, errors_of
from ipsecctl.record import Record


def run(options: argparse.Namespace) -> int:
    """Stops and starts the instance, with the policy file it had if no other is named; the exit code of the start."""
    with Record() as record:
        return restart(options, record)


def restart(options: argparse.Namespace, record: Record) -> int:
    """Checks, stops, starts; the exit code of the start, or why there was no stop."""
    instance, seconds = options.instance, options.confirm
    path = os.path.abspath(options.spd or saved.spd_path_of(instance))
    why, code = "the policy file is not good", exit_codes.STRANGE
    try:
        errors = errors_of(path)
        if not errors:
            errors, why = data_path_missing(check(path).policy.data_path), "this machine lacks what the policy wants"
    except CommandError as error:
        errors, code = (str(error),), error.exit_code
    if errors:
        record.say(*errors, f"ipsecctl: not restarted: {why}")
        return code
    own_ssh.refuse(lockout.by_restart(instance, path), allowed=options.cut_me_off or seconds > 0)
    stop(instance, record)
    if seconds:
        begin_to_wait(instance, seconds)
    code = start(instance, path, record)
    say_what_waits(instance, seconds, record)
    return code


def data_path_missing(wish: DataPathKind) -> tuple[str, ...]:
    """Why the data path that a policy insists on can't be had on this machine; empty if it can."""
    needed = {DataPathKind.KERNEL: ("kernel-esp",), DataPathKind.USERSPACE: ("tun", "nftables", "userspace-esp")}
    found = try_abilities() if wish in needed else {}
    return tuple(
        f'the policy says data_path = "{wish.name.lower()}", but {name} can\'t be had here: {found[name].detail}'
        for name in needed.get(wish, ())
        if name in found and not found[name].present
    )
