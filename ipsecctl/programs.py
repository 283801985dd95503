"""What tells a process of ipsecd: the program that its command line runs, its network namespace, and when it started.

Small, for commands that must be quick. `ipsecctl.processes` looks closely, with psutil; a quick look needs it only
where `running` finds something that should not be there.
"""

import os

from ipc.roles import MODULES, Role
from ipsecctl.arguments import DEFAULT_INSTANCE

_ROLE_OF_MODULE = {module: role for role, module in MODULES.items()}
_INTERPRETER_FLAGS = ("-P", "-I", "-E", "-s", "-B", "-u")
_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def running(instance: str) -> set[int]:
    """The pids of all that run a program of `instance`, in whatever network namespace."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit() and role_in(_arguments_of(name), instance)}


def start_time_of(pid: int) -> float:
    """When a process started, in seconds since boot: with the pid its identity. OSError if it has ended.

    The kernel has it in clock ticks (proc_pid_stat(5)); setting the clock does not move it, as it does psutil's.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19]) / _CLOCK_TICKS_PER_S


def namespace_of(pid: int | str) -> int:
    """The network namespace of a process, as its inode; 0 if the process has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def role_in(arguments: list[str], instance: str) -> Role | None:
    """The role of `instance` that a command line runs: PYTHON [-P] -m MODULE ... --instance DIR, or .../ipsecd ..."""
    program = program_in(arguments)
    if program is None or instance_in(program[0], program[1]) != instance:
        return None
    return program[0]


def instance_in(role: Role, options: list[str]) -> str:
    """The instance that the options of a role name; empty if none, which for a supervisor is the default one."""
    named = DEFAULT_INSTANCE if role is Role.SUPERVISOR else ""
    for position, option in enumerate(options):
        if option == "--instance":
            named = options[position + 1] if position + 1 < len(options) else ""
        elif option.startswith("--instance="):
            named = option.removeprefix("--instance=")
    return os.path.abspath(named) if named else ""


def program_in(arguments: list[str]) -> tuple[Role, list[str]] | None:
    """The role that a command line runs, of whatever instance, and its options; None if it is no ipsecd."""
    rest = arguments[1:]
    while rest and rest[0] in _INTERPRETER_FLAGS:
        rest = rest[1:]
    if rest[:1] == ["-m"] and len(rest) > 1:
        role = _ROLE_OF_MODULE.get(rest[1])
        return (role, rest[2:]) if role is not None else None
    if rest and os.path.basename(rest[0]) == "ipsecd":
        return Role.SUPERVISOR, rest[1:]
    return None


def _arguments_of(pid: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [os.fsdecode(part) for part in file.read().split(b"\0")[:-1]]
    except OSError:
        return []
