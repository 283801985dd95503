"""Real packets through two real data paths in two namespaces."""

import pytest

from ipc import messages as m
from tests.kernel_agent.userspace.lab import tunnel
from tests.lab.ping import ping

pytestmark = pytest.mark.root


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("encapsulated", [False, True], ids=["esp", "udp"])
def test_pings_of_both_families_go_through(outer: int, encapsulated: bool) -> None:
    with tunnel(outer=outer, encapsulated=encapsulated) as one:
        one.start()
        for destination, source in (("10.2.0.1", "10.1.0.1"), ("fd02::1", "fd01::1")):
            for size in (56, 1200):
                result = ping(one.left.namespace, destination, source=source, count=10, interval_s=0.02, size=size)
                assert result.lost == 0
        names = tuple(m.SaName(spi=placed.sa.spi, destination=placed.sa.destination) for placed in one.left_sas.sas)
        one.left.tell(m.QuerySa(request_id=1, sas=names))
        assert [usage.packets for usage in one.left.wait(m.SaUsage).usage] == [40, 40]
