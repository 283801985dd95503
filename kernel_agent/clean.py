"""`python -m kernel_agent.clean`: removes every object of ipsecd from the present network namespace.

Only tagged objects: policies, SAs, routing rules and routes, the nftables table. One line for each kind that was
found; always exit code 0 unless the kernel refuses. Harmless to repeat.
"""

import sys

from ipc.value import value
from kernel_agent import netfilter, routes, routing_table
from kernel_agent.xfrm import messages
from kernel_agent.xfrm.constants import NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM, XfrmMessage
from kernel_agent.xfrm.netlink import Request, RequestSocket
from kernel_agent.xfrm.policy_table import PolicyTable
from kernel_agent.xfrm.xfrm_path import installed_sas


@value
class Removed:
    """How many objects of each kind were removed."""

    sas: int = 0
    policies: int = 0
    routing_rules: int = 0
    routes: int = 0
    nft_tables: int = 0

    def lines(self) -> list[str]:
        """One for each kind that was found."""
        counts = (
            (self.sas, "SAs"),
            (self.policies, "policies"),
            (self.routing_rules, "routing rules"),
            (self.routes, "routes"),
            (self.nft_tables, "nftables tables"),
        )
        return [f"removed {count} {kind}" for count, kind in counts if count]


def remove_everything() -> Removed:
    """Removes all that is tagged as ours; OSError if the kernel refuses."""
    xfrm = RequestSocket(NETLINK_XFRM)
    try:
        sas = remove_sas(xfrm)
        policies = PolicyTable(xfrm).remove_all()
    finally:
        xfrm.close()
    around = remove_around_tun()
    requests = RequestSocket(NETLINK_NETFILTER)
    try:
        tables = netfilter.remove(requests)
    finally:
        requests.close()
    return Removed(
        sas=sas,
        policies=policies,
        routing_rules=around.routing_rules,
        routes=around.routes,
        nft_tables=tables,
    )


def remove_sas(xfrm: RequestSocket) -> int:
    """Removes our SAs; returns how many there were."""
    sas = installed_sas(xfrm)
    xfrm.transact([Request(XfrmMessage.DELSA, messages.sa_id(installed.name)) for installed in sas])
    return len(sas)


def remove_around_tun() -> Removed:
    """Removes the rules and routes of the user-space data path."""
    route = RequestSocket(NETLINK_ROUTE)
    try:
        table = routing_table.RoutingTable(route)
        present = table.present()
        table.install(routes.NOTHING)
    finally:
        route.close()
    return Removed(routing_rules=len(present.rules), routes=len(present.routes))


def main() -> int:
    """The command."""
    try:
        for line in remove_everything().lines():
            print(line)
    except OSError as error:
        print(f"cannot remove: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
