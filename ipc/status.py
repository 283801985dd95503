"""The status of an instance, as `ipsecctl status --json` prints it; docs/status.schema.json is made from this.

The supervisor says what it holds. What can be seen from outside (processes that are not its own, kernel objects
without an owner, ports that others have) is added by ipsecctl, which also writes all of it where no supervisor answers.
"""

import json
from dataclasses import asdict

from ipc.value import value

FORMAT = 2
"""Raised when a field changes its meaning or goes; fields may be added."""


@value
class SeenProcess:
    """A process as the kernel shows it."""

    role: str
    """Empty if it is no process of ipsecd."""
    pid: int
    start_time: float
    """Seconds since boot: with the pid, the identity of the process."""
    uid: int
    age_s: float
    state: str
    """running, sleeping, stopped ..."""
    command: str


@value
class Finding:
    """Something strange. docs/status.md has all codes; one never changes its meaning."""

    code: str
    sentence: str
    process: SeenProcess | None = None
    """The process it is about, where that is not one of the supervisor's own."""


@value
class ProcessFacts:
    """What the kernel says of a role's process."""

    uid: int
    effective_capabilities: int
    """Bit mask by capability number."""
    no_new_privs: bool
    cpu_s: float
    rss_bytes: int
    stopped: bool = False
    """By a signal (SIGSTOP) or a debugger."""


@value
class RoleStatus:
    """One role; `process` is None while there is none."""

    role: str
    state: str
    pid: int
    start_time: float
    """Seconds since boot."""
    up_s: float
    restarts: int
    last_exit: str
    refused_messages: int
    process: ProcessFacts | None
    silent_s: float = 0.0
    """Since the oldest health question that it has not answered; 0 if it owes none."""


@value
class PolicyStatus:
    """The policy in force."""

    path: str
    sha256: str
    generation: int
    rules: int
    age_s: float
    warnings: tuple[str, ...]
    refused: tuple[str, ...]
    """Why the file that was offered last is not in force."""
    backup_reason: str = ""
    """Why this policy was taken and not the policy file; empty if it is the policy file."""
    history: int = 0
    """The number of the last generation that is kept, as `ipsecctl policy history` shows it; 0 if none is."""
    confirm_within_s: float = 0.0
    """The seconds left to confirm this policy, or it goes; 0 if it need not be confirmed."""


@value
class DataPathStatus:
    """Who does ESP, and why."""

    kind: str
    why: str


@value
class ChildSaReport:
    """A Child SA."""

    rule: str
    mode: str
    spi_in: str
    spi_out: str
    algorithms: str
    local: tuple[str, ...]
    remote: tuple[str, ...]
    age_s: float


@value
class TunnelReport:
    """An IKE SA with its Child SAs, or SAs with fixed keys: those have the state "manual", and no SPIs of IKE."""

    peer: str
    state: str
    initiator: bool
    spi_i: str
    spi_r: str
    local: str
    remote: str
    algorithms: str
    age_s: float
    children: tuple[ChildSaReport, ...]


@value
class DownRule:
    """A protect rule that has no SA."""

    rule: str
    peer: str
    start: str
    """on-demand, at-start or respond-only."""
    reason: str
    """Why, in a sentence."""


@value
class KernelObjects:
    """Objects in the kernel that bear our tag."""

    kind: str
    count: int


@value
class Status:
    """The whole status. Without a supervisor that answers, what only it knows is empty."""

    format: int = FORMAT
    running: bool
    """Somebody holds the instance's lock."""
    phase: str
    """starting, running, stopping; stopped; unknown if the supervisor does not answer."""
    mode: str = "normal"
    """What is enforced: normal, the policy as it stands; secure, it is in force and all else is dropped, by the kernel
    itself; none while there is no policy. A stopped instance in secure mode has everything blocked."""
    instance: str
    pid: int = 0
    """Of the supervisor; 0 if there is none."""
    start_time: float = 0.0
    """Seconds since boot."""
    up_s: float = 0.0
    policy: PolicyStatus | None = None
    data_path: DataPathStatus | None = None
    roles: tuple[RoleStatus, ...] = ()
    tunnels: tuple[TunnelReport, ...] = ()
    down: tuple[DownRule, ...] = ()
    stored_ike_sas: int = 0
    refused_messages: int = 0
    """By the supervisor itself."""
    findings: tuple[Finding, ...] = ()
    processes: tuple[SeenProcess, ...] = ()
    """All of the instance's, as seen from outside; looked for where the supervisor does not answer."""
    kernel_objects: tuple[KernelObjects, ...] = ()
    """Counted where the supervisor does not answer."""

    def to_json(self) -> str:
        """As ipsecctl gets and prints it."""
        return json.dumps(asdict(self))
