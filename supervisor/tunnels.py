"""What the worker has told of its IKE SAs, kept for status."""

from ipc import messages as m
from ipc.roles import Role
from supervisor.store import Store


def own_spi(tunnel: m.IkeSaStatus) -> bytes:
    """The SPI that names an IKE SA on this side (RFC 7296 section 3.1)."""
    return tunnel.spi_i if tunnel.initiator else tunnel.spi_r


class Tunnels:
    """The IKE SAs as last told, by worker and own SPI."""

    def __init__(self) -> None:
        self._of_worker: dict[str, dict[bytes, m.IkeSaStatus]] = {}

    def change(self, message: m.TunnelsChanged, worker: str = Role.IKE_WORKER) -> None:
        """Takes over what changed and what is gone."""
        by_spi = self._of_worker.setdefault(worker, {})
        for spi in message.gone:
            by_spi.pop(spi, None)
        for tunnel in message.changed:
            by_spi[own_spi(tunnel)] = tunnel

    def keep_only(self, store: Store, worker: str = Role.IKE_WORKER) -> None:
        """Forgets what a worker that died had not saved in its store: it is gone with that worker."""
        by_spi = self._of_worker.get(worker, {})
        self._of_worker[worker] = {spi: tunnel for spi, tunnel in by_spi.items() if spi in store}

    def all(self) -> tuple[m.IkeSaStatus, ...]:
        """All of them, by peer."""
        told = (tunnel for by_spi in self._of_worker.values() for tunnel in by_spi.values())
        return tuple(sorted(told, key=lambda tunnel: (tunnel.peer, own_spi(tunnel))))
