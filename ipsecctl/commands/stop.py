"""`ipsecctl stop`: an orderly stop through the supervisor; without one, the cleaning up that it would have done."""

import argparse
import shlex
import time
from collections.abc import Callable

from ipc import messages as m
from ipc import status_socket
from ipc.patience import for_policy, for_policy_file
from ipc.roles import Role
from ipsecctl import exit_codes, lock_file, lockout, own_ssh, pending, processes, saved
from ipsecctl.asker import asker
from ipsecctl.cleanup import clean_up, end_processes, wait_until_gone
from ipsecctl.client import ask
from ipsecctl.errors import NoAnswer
from ipsecctl.record import Record
from ipsecctl.report import parse

STOP_WITHIN_S = 15.0
SIGN_OF_LIFE_WITHIN_S = 2.0


def run(options: argparse.Namespace) -> int:
    """Stops the instance; 1 if it did not run, or did not stop by itself."""
    instance, seconds = options.instance, options.confirm
    own_ssh.refuse(lockout.by_stop(instance), allowed=options.cut_me_off or seconds > 0)
    spd = saved.spd_path_of(instance)
    waits = seconds > 0 and lock_file.look(instance).held
    with Record() as record:
        return stop(instance, record, lambda: pending.begin(instance, seconds, _start_again(spd)) if waits else None)


def _start_again(spd: str) -> str:
    return f"start --cut-me-off --spd {shlex.quote(spd)}"


def stop(instance: str, record: Record, before: Callable[[], None] = lambda: None) -> int:
    """Stops `instance` and says each step; the exit code. `before` is called just before anything ends."""
    lock = lock_file.look(instance)
    record.detail(f"stop of {instance}, asked for by {asker()}")
    if pending.end(instance):
        # Or it would be undone when something else runs.
        record.say("  what waited for `ipsecctl confirm` is given up")
    before()
    if not lock.held:
        record.say(f"ipsecctl: IPsec is not running: no process holds {lock.path}", "ipsecctl: cleaning up anyway")
        _say(record, clean_up(instance))
        return exit_codes.STRANGE
    started_at = time.monotonic()
    supervisor = next((one for one in processes.find(instance) if one.role is Role.SUPERVISOR), None)
    within_s = _within_s(instance, record)
    if _ask(instance, record, within_s) and wait_until_gone(supervisor, instance, started_at + within_s):
        # Whoever is left was none of the supervisor's.
        _say(record, end_processes(instance))
        record.detail(f"stopped in {time.monotonic() - started_at:.1f} s")
        record.say("IPsec stopped")
        return exit_codes.OK
    record.say(f"ipsecctl: ipsecd (pid {lock.pid}) did not stop as asked: ending it")
    _say(record, clean_up(instance))
    return exit_codes.STRANGE


def _within_s(instance: str, record: Record) -> float:
    """How long a stop may take: a large policy is more to remove. 0 if the supervisor gives no sign of life."""
    sign_within_s = for_policy_file(SIGN_OF_LIFE_WITHIN_S, saved.spd_path_of(instance))
    try:
        report = parse(status_socket.ask(instance, sign_within_s))
    except status_socket.NoStatus as error:
        record.say(f"ipsecctl: no answer from the supervisor: {error}")
        return 0.0
    return for_policy(STOP_WITHIN_S, rules=report.policy.rules if report.policy is not None else 0)


def _ask(instance: str, record: Record, within_s: float) -> bool:
    """Whether the supervisor said `within_s` that it has stopped."""
    if not within_s:
        return False
    try:
        _say(record, ask(instance, m.StopCommand(), within_s).lines)
    except NoAnswer as error:
        record.say(f"ipsecctl: no answer from the supervisor: {error}")
        return False
    return True


def _say(record: Record, lines: tuple[str, ...]) -> None:
    record.say(*(f"  {line}" for line in lines))
