"""A data path that does nothing but remember, for tests of the agent."""

from ipc.messages import Sa, SaName, Usage
from ipc.types import DataPathKind
from kernel_agent.data_path import Answered, DataPathError, Done, Listener, Lost, SecurityPolicy
from kernel_agent.xfrm.messages import InstalledSa


class MemoryPath:
    """`DataPath` in memory. `refuse` is why the next operations fail, `refuse_policies` only policies; else empty."""

    def __init__(self, kind: DataPathKind = DataPathKind.KERNEL) -> None:
        self._kind = kind
        self.listener: Listener | None = None
        self.policy: SecurityPolicy | None = None
        self.sas: dict[SaName, Sa] = {}
        self.refuse = ""
        self.refuse_policies = ""
        self.differences: tuple[str, ...] = ()
        self.calls: list[str] = []
        """SAs added and deleted, in order: "add SPI", "delete SPI"."""

    @property
    def kind(self) -> DataPathKind:
        """Which one it pretends to be."""
        return self._kind

    def start(self, listener: Listener) -> None:
        """Remembers the listener."""
        if self.refuse:
            raise DataPathError(self.refuse)
        self.listener = listener

    def install_policy(self, policy: SecurityPolicy) -> None:
        """Remembers the policy."""
        if self.refuse or self.refuse_policies:
            raise DataPathError(self.refuse or self.refuse_policies)
        self.policy = policy
        self.differences = ()

    def check_policy(self, policy: SecurityPolicy) -> None:
        """Refuses what `install_policy` would."""
        if self.refuse or self.refuse_policies:
            raise DataPathError(self.refuse or self.refuse_policies)

    def drift(self, policy: SecurityPolicy) -> tuple[str, ...]:
        """What the test says."""
        return self.differences

    def installed_sas(self) -> tuple[InstalledSa, ...]:
        """The SAs that were added."""
        return tuple(InstalledSa(name=name, rule_id=sa.rule_id) for name, sa in self.sas.items())

    def add_sas(self, sas: tuple[Sa, ...], done: Done) -> None:
        """Adds them."""
        if not self.refuse:
            self.calls += [f"add {sa.spi:x}" for sa in sas]
            self.sas.update({SaName(spi=sa.spi, destination=sa.destination): sa for sa in sas})
        done(self.refuse)

    def restore_sas(self, sas: tuple[Sa, ...], lost: Lost) -> None:
        """As `add_sas`, one by one."""
        for sa in sas:
            if self.refuse:
                lost(SaName(spi=sa.spi, destination=sa.destination), self.refuse)
            else:
                self.add_sas((sa,), lambda _reason: None)

    def delete_sas(self, names: tuple[SaName, ...], done: Done) -> None:
        """Deletes them."""
        self.calls += [f"delete {name.spi:x}" for name in names]
        for name in names:
            self.sas.pop(name, None)
        done(self.refuse)

    def query_sas(self, names: tuple[SaName, ...], answered: Answered) -> None:
        """No traffic ever."""
        answered(tuple(Usage(sa=name, packets=0, bytes=0, idle_s=0.0) for name in names if name in self.sas))

    def leave(self) -> None:
        """Forgets the listener."""
        self.listener = None
