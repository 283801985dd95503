"""Which SAs a reload would delete: those of rules that change or go, and all that there is with peers that do."""

from collections.abc import Iterable, Iterator

from ipc import messages as m


def plan_of(changes: m.PolicyChanges, tunnels: Iterable[m.IkeSaStatus]) -> m.ReloadPlan:
    """The plan of a reload with these changes, while there are these IKE SAs."""
    cut = tuple(_cut(changes, tunnels))
    return m.ReloadPlan(changes=changes, cut=cut[: m.MAX_NAMED], cut_count=len(cut))


def _cut(changes: m.PolicyChanges, tunnels: Iterable[m.IkeSaStatus]) -> Iterator[m.CutSa]:
    rules = {*changes.changed, *changes.removed}
    for tunnel in tunnels:
        whole = tunnel.peer in changes.peers
        if whole:
            yield m.CutSa(peer=tunnel.peer, rule="", spi_in=tunnel.spi_i.hex(), spi_out=tunnel.spi_r.hex())
        for child in tunnel.children:
            if whole or child.rule in rules:
                spi_in, spi_out = f"{child.spi_in:08x}", f"{child.spi_out:08x}"
                yield m.CutSa(peer=tunnel.peer, rule=child.rule, spi_in=spi_in, spi_out=spi_out)
