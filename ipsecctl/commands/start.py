"""`ipsecctl start`: runs ipsecd as a daemon, and says what it says."""

import argparse
import os
import subprocess

from ipc import kept
from ipc.generations import backup_of
from ipc.patience import for_policy_file
from ipc.roles import module_command
from ipsecctl import exit_codes, lock_file, lockout, own_ssh, pending, secure_mode
from ipsecctl.arguments import DEFAULT_SPD
from ipsecctl.asker import asker
from ipsecctl.cleanup import end_orphans, unlocked_supervisor
from ipsecctl.commands import secure
from ipsecctl.lock_file import LockState
from ipsecctl.modules import environment
from ipsecctl.record import Record

ALREADY_RUNNING = "ipsecd is already running"
START_WITHIN_S = 30.0
"""The supervisor gives itself ten seconds, and some more to undo a start that failed; a large policy adds to both."""


def run(options: argparse.Namespace) -> int:
    """Starts the instance; 0 if it runs then, also if it did before."""
    with Record() as record:
        if options.boot and not kept.is_enabled(options.instance):
            record.say("ipsecd is not enabled to come up at boot: ipsecctl enable changes that")
            return exit_codes.OK
        if options.boot or lock_file.look(options.instance).held:
            return start(options.instance, options.spd, record, options_of_ipsecd(options))
        return _start_with_care(options, record)


def _start_with_care(options: argparse.Namespace, record: Record) -> int:
    """Starts unless that would cut the operator off; with --confirm it is undone if he is silent then."""
    instance, seconds = options.instance, options.confirm
    own_ssh.refuse(
        lockout.by_start(options.spd or DEFAULT_SPD, backup=options.backup), allowed=options.cut_me_off or seconds > 0
    )
    if seconds:
        begin_to_wait(instance, seconds)
    code = start(instance, options.spd, record, options_of_ipsecd(options))
    say_what_waits(instance, seconds, record)
    return code


def begin_to_wait(instance: str, seconds: float) -> None:
    """What is started next is stopped again after `seconds`, and secure mode ends if it is off now."""
    pending.begin(instance, seconds, "stop --cut-me-off", *(() if secure_mode.is_on() else (secure.UNDO,)))


def say_what_waits(instance: str, seconds: float, record: Record) -> None:
    """After a start that waits for a confirmation, if it does."""
    if seconds and not lock_file.look(instance).held:
        pending.end(instance)
    elif seconds:
        record.say(f"it is stopped again after {seconds:g} s unless `ipsecctl confirm` is given")


def options_of_ipsecd(options: argparse.Namespace) -> tuple[str, ...]:
    """The options of ipsecd that were given to us."""
    given = ["-b"] if options.backup else []
    given += ["-l"] if options.log_unmatched else []
    given += ["-m", options.level] if options.level is not None else []
    given += ["-o", os.path.abspath(options.output)] if options.output is not None else []
    return tuple(given)


def start(instance: str, spd: str | None, record: Record, daemon_options: tuple[str, ...] = ()) -> int:
    """Starts ipsecd; its exit code."""
    record.detail(f"start of {instance} with {spd or DEFAULT_SPD}, asked for by {asker()}")
    lock = lock_file.look_for_holder(instance)
    if lock.held:
        return _already_running(lock, record)
    stray = unlocked_supervisor(instance)
    if stray is not None:
        record.say(f"ipsecctl: {stray} runs, but does not hold {lock.path}: ipsecctl stop ends it")
        return exit_codes.STRANGE
    record.say(*(f"  {line}" for line in end_orphans(instance)))
    return _run_ipsecd(instance, spd, record, daemon_options)


def _already_running(lock: LockState, record: Record) -> int:
    if not lock.names_a_process:
        record.say(f"ipsecctl: {lock.path} is held, but by no ipsecd that it names")
        return exit_codes.STRANGE
    record.say(f"{ALREADY_RUNNING} (pid {lock.pid})")
    return exit_codes.OK


def _run_ipsecd(instance: str, spd: str | None, record: Record, daemon_options: tuple[str, ...]) -> int:
    arguments = ["-d", "--instance", instance, *daemon_options]
    if spd is not None:
        arguments += ["-f", spd]
    within_s = max(
        for_policy_file(START_WITHIN_S, path) for path in (spd or DEFAULT_SPD, backup_of(spd or DEFAULT_SPD))
    )
    try:
        done = subprocess.run(
            module_command("supervisor", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(),
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        record.say(f"ipsecctl: ipsecd did not say within {within_s:.0f} s whether it has started")
        return exit_codes.STRANGE
    record.say(*done.stdout.splitlines())
    if done.returncode == exit_codes.NOT_CONFIGURED:
        return exit_codes.NOT_CONFIGURED
    # Of two starts at once the other one won, and ours has said so.
    won = done.returncode != 0 and ALREADY_RUNNING in done.stdout
    return exit_codes.OK if done.returncode == 0 or won else exit_codes.STRANGE
