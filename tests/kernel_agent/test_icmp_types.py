"""`icmp_type` of the policy language in a real kernel: just those messages are dropped, whichever way they go."""

from collections.abc import Iterator

import pytest

from ipc.loop import Loop
from kernel_agent import clean
from kernel_agent.data_path import Listener
from kernel_agent.xfrm.xfrm_path import XfrmPath
from policy_loader import policy_file
from policy_loader.rule_ids import RuleIds
from tests.kernel_agent.namespace import host_and_peer
from tests.kernel_agent.values import policy
from tests.lab.namespaces import Namespace
from tests.lab.ping import ping

pytestmark = pytest.mark.root

SPD = """
[setup]
interfaces = ["eth0"]
unmatched = "bypass"
[[rules]]
name = "icmp"
action = "discard"
protocol = "{protocol}"
icmp_type = "{kind}"
"""


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Namespace, Namespace, XfrmPath]]:
    with host_and_peer() as (host, peer):
        path = host.call(lambda: XfrmPath(Loop(), drop_leftovers=clean.Removed))
        listener = Listener(on_acquire=lambda _: None, on_expire=lambda _: None, on_peer_moved=lambda _: None)
        host.call(lambda: path.start(listener))
        yield host, peer, path
        path.leave()


@pytest.mark.parametrize(
    ("protocol", "kind", "we_may_ping", "they_may_ping"),
    [
        ("icmp", "echo-request", False, False),
        ("icmp", "8/0", False, False),
        ("icmp", "8/1", True, True),
        ("icmp", "echo-reply", False, False),
        ("icmp", "timestamp-request", True, True),
        ("icmp", "0/8", True, True),
        ("icmpv6", "echo-request", True, True),
    ],
)
def test_just_the_type_and_code_that_is_named_is_dropped(
    ends: tuple[Namespace, Namespace, XfrmPath], protocol: str, kind: str, we_may_ping: bool, they_may_ping: bool
) -> None:
    host, peer, path = ends
    text = SPD.format(protocol=protocol, kind=kind)
    compiled = policy_file.read("x", text.encode(), 0o600, 0).compile({}, RuleIds()).policy
    path.install_policy(policy(*compiled.kernel_rules))
    for namespace, destination, may in ((host, "10.9.0.2", we_may_ping), (peer, "10.9.0.1", they_may_ping)):
        assert (ping(namespace, destination, wait_s=10.0 if may else 1.0).received == 1) is may
