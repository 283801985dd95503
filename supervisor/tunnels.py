"""What the worker has told of its IKE SAs, kept for status."""

from ipc import messages as m
from supervisor.store import Store


def own_spi(tunnel: m.IkeSaStatus) -> bytes:
    """The SPI that names an IKE SA on this side (RFC 7296 section 3.1)."""
    return tunnel.spi_i if tunnel.initiator else tunnel.spi_r


class Tunnels:
    """The IKE SAs as last told, by own SPI."""

    def __init__(self) -> None:
        self._by_spi: dict[bytes, m.IkeSaStatus] = {}

    def change(self, message: m.TunnelsChanged) -> None:
        """Takes over what changed and what is gone."""
        for spi in message.gone:
            self._by_spi.pop(spi, None)
        for tunnel in message.changed:
            self._by_spi[own_spi(tunnel)] = tunnel

    def keep_only(self, store: Store) -> None:
        """Forgets what a worker that died had not saved: it is gone with that worker."""
        self._by_spi = {spi: tunnel for spi, tunnel in self._by_spi.items() if spi in store}

    def all(self) -> tuple[m.IkeSaStatus, ...]:
        """All of them, by peer."""
        return tuple(sorted(self._by_spi.values(), key=lambda tunnel: (tunnel.peer, own_spi(tunnel))))
