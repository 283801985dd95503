"""The whole life of one supervisor: run directory and lock, start, running, stop."""

import logging
import os

from ipc.garbage import look_seldom
from ipc.process import set_up_log
from ipc.roles import SUPERVISOR_NAME, Role
from supervisor import notify
from supervisor.detach import Starter, name_process
from supervisor.errors import StartFailed
from supervisor.instance import Instance
from supervisor.lock import Lock
from supervisor.log_file import LogFile, open_output
from supervisor.role_table import ROLE_TABLE, RoleRow
from supervisor.run_directory import RunDirectory
from supervisor.settings import Settings
from supervisor.shutdown import Shutdown
from supervisor.startup import Startup

log = logging.getLogger(__name__)


def run(settings: Settings, starter: Starter, table: tuple[RoleRow, ...] = ROLE_TABLE) -> int:
    """Starts the instance, runs it until it is told to stop, and leaves nothing behind; the exit code."""
    os.umask(0o022)
    look_seldom()
    directory, lock = RunDirectory(settings.instance), Lock(settings.instance)
    try:
        directory.prepare()
        lock.take()
        name_process(SUPERVISOR_NAME)
    except StartFailed as error:
        return _failed(starter, error)
    try:
        try:
            log_file = _use_log(settings, starter, directory)
        except OSError as error:
            return _failed(starter, StartFailed(f"the log can't be opened: {error}"))
        set_up_log(Role.SUPERVISOR, settings.log_level)
        return _run_locked(Instance(settings, table, directory, lock.holder, log_file), starter)
    finally:
        lock.release()


def _use_log(settings: Settings, starter: Starter, directory: RunDirectory) -> LogFile | None:
    """Where the log goes: to the file that was asked for, else for a daemon to its own, else to the terminal."""
    if settings.output:
        return starter.use_log(lambda: open_output(settings.output), also_in_foreground=True)
    return starter.use_log(directory.open_log)


def _run_locked(instance: Instance, starter: Starter) -> int:
    try:
        started = Startup(instance).run()
        for line in started.lines:
            starter.announce(f"ipsecd: {line}")
        starter.finished(started.exit_code)
        instance.run()
        log.info("stops: %s", instance.stop_reason)
    except StartFailed as error:
        return _failed(starter, error)
    finally:
        notify.stopping()
        Shutdown(instance).run()
        log.info("stopped")
    return 0


def _failed(starter: Starter, error: StartFailed) -> int:
    for line in error.lines:
        starter.announce(f"ipsecd: {line}")
    return error.exit_code
