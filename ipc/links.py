"""The links between roles: at once the process graph and the access list.

A message that does not stand here in its direction is refused by the receiver. Each link is one socket file, made by
the supervisor, which hands the listener to `binder`; `connector` connects to it. The order of the lists is the order
in which a conversation goes.
"""

from dataclasses import dataclass

from ipc import messages as m
from ipc import wishes as w
from ipc.roles import Role


@dataclass(frozen=True, slots=True)
class Link:
    """Two roles that speak directly with each other, and all that each may say."""

    name: str
    binder: Role
    connector: Role
    from_binder: frozenset[type]
    from_connector: frozenset[type]

    def sendable(self, role: Role) -> frozenset[type]:
        """What `role` may say on this link."""
        return self.from_binder if role is self.binder else self.from_connector

    def receivable(self, role: Role) -> frozenset[type]:
        """What `role` must be ready to hear on this link."""
        return self.from_connector if role is self.binder else self.from_binder


_LIFE_FROM_SUPERVISOR = (m.HealthQuestion, m.Stop)
_LIFE_FROM_ROLE = (m.Hello, m.HealthAnswer, m.SenderMisbehaved, m.Stopped)
_ANSWERS_TO_OPERATOR = (w.SasListed, w.FailureTold, w.CaptureKeys)
"""From the worker to the supervisor, and from there to ipsecctl."""

SUPERVISOR_AGENT = Link(
    "supervisor-agent",
    Role.SUPERVISOR,
    Role.KERNEL_AGENT,
    frozenset({*_LIFE_FROM_SUPERVISOR, m.UseDataPath, m.LogUnmatched}),
    frozenset({*_LIFE_FROM_ROLE, m.AgentReady, m.DataPathReady, m.DataPathFailed, m.PolicyDrift}),
)
SUPERVISOR_LOADER = Link(
    "supervisor-loader",
    Role.SUPERVISOR,
    Role.POLICY_LOADER,
    frozenset({*_LIFE_FROM_SUPERVISOR, m.ParsePolicy, m.CredentialContent, m.NameResolved, m.EnforcePolicy}),
    frozenset(
        {
            *_LIFE_FROM_ROLE,
            m.ReadCredential,
            m.ResolveName,
            m.PolicyParsed,
            m.PolicyRefused,
            m.PolicyEnforced,
            m.PolicyNotEnforced,
        }
    ),
)
SUPERVISOR_WORKER = Link(
    "supervisor-worker",
    Role.SUPERVISOR,
    Role.IKE_WORKER,
    frozenset({*_LIFE_FROM_SUPERVISOR, m.RestoreIkeSas, m.IkeSasSaved, m.Elsewhere, w.OperatorWish, w.WatchSas}),
    frozenset(
        {
            *_LIFE_FROM_ROLE,
            m.WorkerReady,
            m.SaveIkeSas,
            m.TunnelsChanged,
            m.RulesChanged,
            *_ANSWERS_TO_OPERATOR,
            w.WishEnded,
            w.SasHappened,
        }
    ),
)
SUPERVISOR_DATA_PATH = Link(
    "supervisor-data",
    Role.SUPERVISOR,
    Role.DATA_PATH,
    frozenset(_LIFE_FROM_SUPERVISOR),
    frozenset(_LIFE_FROM_ROLE),
)
LOADER_AGENT = Link(
    "loader-agent",
    Role.KERNEL_AGENT,
    Role.POLICY_LOADER,
    frozenset({m.NeedPolicy, m.PolicyInstalled, m.PolicyNotInstalled}),
    frozenset({m.BeginPolicy, m.AddPolicy, m.AddManualSas, m.CommitPolicy}),
)
LOADER_WORKER = Link(
    "loader-worker",
    Role.POLICY_LOADER,
    Role.IKE_WORKER,
    frozenset(
        {
            m.BeginPolicy,
            m.AddPeer,
            m.AddNegotiationRule,
            m.CommitPolicy,
            m.AuthComputed,
            m.AuthVerified,
            m.AuthRefused,
        }
    ),
    frozenset({m.NeedPolicy, m.ComputeAuth, m.VerifyAuth}),
)
WORKER_AGENT = Link(
    "worker-agent",
    Role.KERNEL_AGENT,
    Role.IKE_WORKER,
    frozenset(
        {
            m.NeedSas,
            m.SpiAllocated,
            m.SaAdded,
            m.SaRefused,
            m.SaDeleted,
            m.SaUsage,
            m.Acquire,
            m.Expire,
            m.PeerMoved,
        }
    ),
    frozenset({m.SyncSa, m.AllocateSpi, m.AddSa, m.DeleteSa, m.QuerySa}),
)
AGENT_DATA_PATH = Link(
    "agent-data",
    Role.KERNEL_AGENT,
    Role.DATA_PATH,
    frozenset({m.BeginPolicy, m.AddPolicy, m.CommitPolicy, m.PlaceSa, m.DeleteSa, m.QuerySa}),
    frozenset(
        {
            m.NeedPolicy,
            m.PolicyTaken,
            m.SaAdded,
            m.SaRefused,
            m.SaDeleted,
            m.SaUsage,
            m.Acquire,
            m.Expire,
            m.PeerMoved,
        }
    ),
)
CONTROL = Link(
    "control",
    Role.SUPERVISOR,
    Role.IPSECCTL,
    frozenset({m.CommandDone, *_ANSWERS_TO_OPERATOR, w.MonitorEvents}),
    frozenset(
        {
            m.StopCommand,
            m.ReloadCommand,
            m.ConfirmCommand,
            m.RollbackCommand,
            m.LogUnmatchedCommand,
            w.OperatorCommand,
            w.MonitorCommand,
            w.MonitorTaken,
        }
    ),
)

LINKS: tuple[Link, ...] = (
    SUPERVISOR_AGENT,
    SUPERVISOR_LOADER,
    SUPERVISOR_WORKER,
    SUPERVISOR_DATA_PATH,
    LOADER_AGENT,
    LOADER_WORKER,
    WORKER_AGENT,
    AGENT_DATA_PATH,
    CONTROL,
)


def links_of(role: Role) -> tuple[Link, ...]:
    """The links on which `role` speaks."""
    return tuple(link for link in LINKS if role in (link.binder, link.connector))


def socket_path(run_directory: str, link: Link) -> str:
    """The socket file of `link` in an instance."""
    return f"{run_directory}/links/{link.name}"
