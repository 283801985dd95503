"""Starting a role, or a program of ours: fork and exec, with just the descriptors and the environment that it needs."""

import os
import site
import subprocess
from pathlib import Path

import ipc
from ipc import patience
from ipc.links import links_of
from ipc.process import DESCRIPTORS_VARIABLE, LISTENER_PREFIX, LOG_LEVEL_VARIABLE, SUPERVISOR_OPTION, WORKER_OPTION
from ipc.roles import Role, module_command
from supervisor.role_table import RoleRow
from supervisor.settings import Settings
from supervisor.sockets import Descriptors, name_for

SAFE_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON_PATH_VARIABLE = "PYTHONPATH"


class ProgramFailed(Exception):
    """A program of ours could not be run, or did not do what it is for; the text says why."""


def base_environment() -> dict[str, str]:
    """Where our packages are if not installed, and how patient we are; nothing else of our environment."""
    environment = {"PATH": SAFE_PATH, "LANG": "C.UTF-8"}
    if patience.VARIABLE in os.environ:
        environment[patience.VARIABLE] = os.environ[patience.VARIABLE]
    packages = str(Path(ipc.__path__[0]).parent)
    paths = [] if packages in site.getsitepackages() else [packages]
    inherited = os.environ.get(PYTHON_PATH_VARIABLE, "")
    paths += [path for path in inherited.split(os.pathsep) if os.path.isabs(path) and path != packages]
    if paths:
        environment[PYTHON_PATH_VARIABLE] = os.pathsep.join(paths)
    return environment


def descriptors_of(row: RoleRow, descriptors: Descriptors) -> dict[str, int]:
    """What `row` inherits: name as it knows it, to descriptor. A family that this host lacks is left out."""
    wanted = {}
    for name in row.descriptors:
        own = f"data:{name}" if row.role is Role.DATA_PATH and name.startswith("udp") else name_for(row.name, name)
        if descriptors.has(own):
            wanted[name] = descriptors.number(own)
    for link in links_of(row.role):
        name = LISTENER_PREFIX + link.name
        if link.binder is row.role and descriptors.has(name):
            wanted[name] = descriptors.number(name)
    return wanted


def spawn(row: RoleRow, settings: Settings, descriptors: Descriptors, log: int | None) -> subprocess.Popen[bytes]:
    """Starts a process of `row`, whose output goes to `log`, or where ours goes; OSError if there can be none."""
    handed = descriptors_of(row, descriptors)
    environment = base_environment()
    environment[DESCRIPTORS_VARIABLE] = ",".join(f"{name}={number}" for name, number in handed.items())
    environment[LOG_LEVEL_VARIABLE] = settings.log_level
    arguments = ["--instance", settings.instance, SUPERVISOR_OPTION, str(os.getpid())]
    if row.index:
        arguments += [WORKER_OPTION, str(row.index)]
    return subprocess.Popen(
        module_command(row.module, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=tuple(handed.values()),
        cwd="/",
        env=environment,
        # What is sent to our group (a terminal's ^C, timeout(1)) is for the supervisor, which ends them in order.
        process_group=0,
    )


def run_program(module: str, *arguments: str, within_s: float) -> str:
    """What one of our modules prints when it is run to its end; ProgramFailed if it fails or takes longer."""
    try:
        done = subprocess.run(
            module_command(module, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=base_environment(),
            timeout=within_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramFailed(str(error)) from error
    if done.returncode:
        raise ProgramFailed(done.stderr.strip()[-500:])
    return done.stdout.strip()
