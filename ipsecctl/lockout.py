"""Whether a command would cut the operator's own SSH connection: which policy decides in each case.

Each answers with a sentence, or with nothing where no connection would be cut. Without a connection no policy is read.
"""

import os

from ipc import generations, status_socket
from ipc.patience import patient
from ipsecctl import lock_file, saved, secure_mode
from ipsecctl.errors import BadPolicy, CommandError
from ipsecctl.own_ssh import cut_by, cut_by_everything, own_connections
from ipsecctl.policy_check import check
from ipsecctl.report import Report, parse

ANSWER_WITHIN_S = patient(2.0)


def by_start(spd: str, *, backup: bool) -> str:
    """By a start under this policy file, or its backup. A file that is not good is for the start to complain of."""
    own = own_connections()
    if not own:
        return ""
    path = os.path.abspath(spd)
    for candidate in (generations.backup_of(path),) if backup else (path, generations.backup_of(path)):
        try:
            return cut_by(check(candidate), candidate, own, secure=secure_mode.is_on())
        except (BadPolicy, CommandError):
            # The next one is what the start would take.
            continue
    return ""


def by_reload(instance: str, path: str = "") -> str:
    """By a reload, or, with `path`, by a return to the policy there. A file that is not good changes nothing."""
    own = own_connections()
    report = _report(instance) if own else None
    if report is None:
        return ""
    path = path or saved.spd_path_of(instance)
    try:
        checked = check(path)
    except (BadPolicy, CommandError):
        return ""
    return cut_by(checked, path, own, secure=report.mode == "secure", live=_live_rules(report))


def by_restart(instance: str, path: str) -> str:
    """By a stop and a start with the policy there."""
    running = lock_file.look(instance).held
    return by_reload(instance, path) if running else by_start(path, backup=False)


def by_stop(instance: str) -> str:
    """By a stop after which secure mode stays on."""
    own = own_connections()
    if not own or not secure_mode.stays_at_stop(instance):
        return ""
    return cut_by_everything(own, "secure mode stays on at a stop, and then the kernel drops everything")


def by_secure(instance: str) -> str:
    """By secure mode, under the policy in force, or without any."""
    own = own_connections()
    if not own:
        return ""
    if not lock_file.look(instance).held:
        return cut_by_everything(own, "ipsecd does not run, so no policy lets it pass")
    report = _report(instance)
    if report is None or report.policy is None:
        return cut_by_everything(own, "ipsecd does not say which policy is in force")
    path = report.policy.path
    try:
        checked = check(path)
    except CommandError:
        checked = None
    if checked is None or checked.policy.sha256.hex() != report.policy.sha256:
        return cut_by_everything(own, f"{path} is not what is in force, so nobody knows whether it may pass")
    return cut_by(checked, path, own, secure=True, live=_live_rules(report))


def _report(instance: str) -> Report:
    """The status of what runs; None if nothing answers."""
    try:
        return parse(status_socket.ask(instance, ANSWER_WITHIN_S))
    except status_socket.NoStatus:
        return None


def _live_rules(report: Report) -> frozenset[str]:
    """The protect rules that have an SA."""
    return frozenset(child.rule for tunnel in report.tunnels for child in tunnel.children)
