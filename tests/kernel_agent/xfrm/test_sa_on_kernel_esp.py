"""SAs in a kernel that has ESP: installed, used, counted, expired, rekeyed, deleted. Skipped where there is none."""

import contextlib
import dataclasses
import socket
import time
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field

import pytest

from ipc.algorithms import (
    AES128CBC,
    AES256GCM16,
    CHACHA20POLY1305,
    INTEGRITY_KEY_BYTES,
    Cipher,
    IntegrityId,
    cipher_sizes,
)
from ipc.loop import Loop
from ipc.messages import Acquire, Expire, PeerMoved, Sa, SaName, Usage
from ipc.types import Direction, Mode, Secret, UdpEncapsulation
from kernel_agent import clean
from kernel_agent.data_path import Listener
from kernel_agent.probe import probe_kernel_esp
from kernel_agent.xfrm.constants import UDP_ENCAP_ESPINUDP
from kernel_agent.xfrm.xfrm_path import XfrmPath
from tests.kernel_agent.namespace import clear_packet_arrives, host_and_peer
from tests.kernel_agent.values import OURS, THEIRS, name_of, policy, rule, sa, selector
from tests.lab.namespaces import Namespace

pytestmark = pytest.mark.root
UDP_ENCAP = 100
"""Socket option of linux/udp.h."""


@pytest.fixture(scope="module", autouse=True)
def kernel_esp() -> None:
    """Skips where the kernel says no."""
    found = probe_kernel_esp()
    if not found.present:
        pytest.skip(found.detail)


@dataclass(slots=True, kw_only=True)
class Host:
    """One end of the tunnel."""

    namespace: Namespace
    path: XfrmPath
    loop: Loop
    acquires: list[Acquire] = field(default_factory=list)
    expires: list[Expire] = field(default_factory=list)
    moves: list[PeerMoved] = field(default_factory=list)

    def wait_for(self, events: Sized, count: int = 1) -> None:
        """Goes round the loop until so many events have come."""
        deadline = time.monotonic() + 10
        while len(events) < count and time.monotonic() < deadline:
            self.loop.run_once(0.05)
        assert len(events) >= count


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """Two hosts whose nets a protect rule joins. No SA yet."""

    left: Host
    right: Host


def start_host(namespace: Namespace) -> Host:
    loop = Loop()
    host = Host(
        namespace=namespace,
        loop=loop,
        path=namespace.call(lambda: XfrmPath(loop, drop_leftovers=clean.Removed)),
    )
    listener = Listener(on_acquire=host.acquires.append, on_expire=host.expires.append, on_peer_moved=host.moves.append)
    namespace.call(lambda: host.path.start(listener))
    return host


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    with host_and_peer() as (left, right):
        made = Tunnel(left=start_host(left), right=start_host(right))
        made.left.path.install_policy(policy(rule(1)))
        mirrored = rule(1, local=("10.2.0.0/24",), remote=("10.1.0.0/24",))
        swapped_ends = dataclasses.replace(mirrored, local_address=THEIRS, peer_address=OURS)
        made.right.path.install_policy(policy(swapped_ends))
        yield made
        made.left.path.leave()
        made.right.path.leave()


def done_well(reason: str) -> None:
    assert reason == ""


def never_lost(name: SaName, reason: str) -> None:
    raise AssertionError(f"{name}: {reason}")


def pair_for(host: str, spi: int, **changes: object) -> tuple[Sa, Sa]:
    """Inbound and outbound SA of one end; SPI `spi` goes to the right, `spi` + 1 to the left."""
    if host == "left":
        return sa(Direction.IN, spi + 1, **changes), sa(Direction.OUT, spi, **changes)
    swapped = {"local": (selector("10.2.0.0/24"),), "remote": (selector("10.1.0.0/24"),), **changes}
    inward = sa(Direction.IN, spi, source=OURS, destination=THEIRS, **swapped)
    outward = sa(Direction.OUT, spi + 1, source=THEIRS, destination=OURS, **swapped)
    return inward, outward


def install(tunnel: Tunnel, spi: int, **changes: object) -> None:
    """A pair of SAs at both ends."""
    tunnel.left.path.add_sas(pair_for("left", spi, **changes), done_well)
    tunnel.right.path.add_sas(pair_for("right", spi, **changes), done_well)


def usage(host: Host, one: Sa) -> Usage:
    answers: list[tuple[Usage, ...]] = []
    host.path.query_sas((name_of(one),), answers.append)
    return answers[0][0]


def arrives(tunnel: Tunnel) -> bool:
    return clear_packet_arrives(tunnel.left.namespace, tunnel.right.namespace)


@pytest.mark.parametrize(
    ("cipher", "integrity"),
    [
        (AES256GCM16, IntegrityId.NONE),
        (CHACHA20POLY1305, IntegrityId.NONE),
        (AES128CBC, IntegrityId.HMAC_SHA2_256_128),
        (AES128CBC, IntegrityId.HMAC_SHA2_512_256),
    ],
)
@pytest.mark.parametrize("esn", [True, False])
def test_traffic_flows_with_every_algorithm(tunnel: Tunnel, cipher: Cipher, integrity: IntegrityId, esn: bool) -> None:
    sizes = cipher_sizes(cipher)
    keys = {
        "cipher": cipher,
        "integrity": integrity,
        "encryption_key": Secret(bytes(range(sizes.key + sizes.salt))),
        "integrity_key": Secret(bytes(range(INTEGRITY_KEY_BYTES[integrity]))),
    }
    assert not arrives(tunnel)
    install(tunnel, 0x1000, esn=esn, replay_window_packets=1024 if esn else 32, **keys)
    assert arrives(tunnel)
    inward, outward = pair_for("left", 0x1000)
    assert usage(tunnel.left, outward).packets == 1
    assert usage(tunnel.left, outward).idle_s < 5
    assert usage(tunnel.left, inward).packets == 0


def test_udp_encapsulation_is_installed(tunnel: Tunnel) -> None:
    install(tunnel, 0x1000, encapsulation=UdpEncapsulation(source_port=4500, destination_port=4500))
    assert "encap type espinudp sport 4500 dport 4500" in tunnel.left.namespace.ip("xfrm", "state")


def test_it_is_told_when_a_peer_sends_from_another_port(tunnel: Tunnel) -> None:
    """As behind a NAT whose mapping changes."""
    with udp_encapsulation_socket(tunnel.right.namespace):
        install(tunnel, 0x1000, encapsulation=UdpEncapsulation(source_port=4500, destination_port=4500))
        assert arrives(tunnel)
        assert tunnel.right.moves == []
        tunnel.left.path.delete_sas((name_of(pair_for("left", 0x1000)[1]),), done_well)
        elsewhere = UdpEncapsulation(source_port=4711, destination_port=4500)
        tunnel.left.path.add_sas(pair_for("left", 0x1000, encapsulation=elsewhere)[1:], done_well)
        # The numbers of packets begin again: what the replay window refuses tells nothing.
        for _ in range(3):
            arrives(tunnel)
        tunnel.right.wait_for(tunnel.right.moves)
        name = name_of(pair_for("right", 0x1000)[0])
        assert tunnel.right.moves == [PeerMoved(sa=name, source=OURS, source_port=4711)], "told once, not each time"


@contextlib.contextmanager
def udp_encapsulation_socket(namespace: Namespace) -> Iterator[None]:
    """Has the kernel take ESP in UDP at port 4500."""
    with namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as opened:
        opened.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
        opened.bind(("0.0.0.0", 4500))
        yield


def test_an_sa_answers_the_acquire_and_the_larval_sa_goes(tunnel: Tunnel) -> None:
    assert not arrives(tunnel)
    tunnel.left.wait_for(tunnel.left.acquires)
    acquire = tunnel.left.acquires[0]
    assert acquire.rule_id == 1
    assert tunnel.left.path.installed_sas() == ()
    assert tunnel.left.namespace.ip("xfrm", "state").count("spi 0x00000000") == 1
    inward, outward = pair_for("left", 0x1000, acquire_id=acquire.acquire_id)
    tunnel.left.path.add_sas((inward, outward), done_well)
    tunnel.right.path.add_sas(pair_for("right", 0x1000), done_well)
    assert "spi 0x00000000" not in tunnel.left.namespace.ip("xfrm", "state")
    assert arrives(tunnel)


def test_the_newest_outbound_sa_carries_the_traffic(tunnel: Tunnel) -> None:
    install(tunnel, 0x1000)
    assert arrives(tunnel)
    install(tunnel, 0x2000)
    assert arrives(tunnel)
    assert usage(tunnel.left, pair_for("left", 0x1000)[1]).packets == 1
    assert usage(tunnel.left, pair_for("left", 0x2000)[1]).packets == 1


def test_lifetimes_expire_softly_and_then_hard(tunnel: Tunnel) -> None:
    inward, outward = pair_for("left", 0x1000, soft_lifetime_s=1.0, hard_lifetime_s=2.0)
    tunnel.left.path.add_sas((inward, outward), done_well)
    tunnel.left.wait_for(tunnel.left.expires, 4)
    told = tunnel.left.expires
    for one in (inward, outward):
        assert [expire.hard for expire in told if expire.sa == name_of(one)] == [False, True]
    assert tunnel.left.path.installed_sas() == ()


def test_lifetimes_in_packets_and_bytes_expire_too(tunnel: Tunnel) -> None:
    tunnel.right.path.add_sas(pair_for("right", 0x1000), done_well)
    limits = {"soft_lifetime_bytes": 1, "hard_lifetime_packets": 3}
    inward, outward = pair_for("left", 0x1000, **limits)
    tunnel.left.path.add_sas((inward, outward), done_well)
    assert [arrives(tunnel) for _ in range(4)] == [True, True, True, False]
    tunnel.left.wait_for(tunnel.left.expires, 2)
    assert [(one.sa, one.hard) for one in tunnel.left.expires] == [(name_of(outward), False), (name_of(outward), True)]


def test_o26_fixed_keys_carry_traffic_whatever_the_numbers_are(tunnel: Tunnel) -> None:
    fixed = {
        "cipher": AES128CBC,
        "integrity": IntegrityId.HMAC_SHA2_256_128,
        "encryption_key": Secret(bytes(range(16))),
        "integrity_key": Secret(bytes(range(32))),
        "esn": False,
        "replay_window_packets": 0,
    }
    install(tunnel, 0x1000, **fixed)
    assert all(arrives(tunnel) for _ in range(3))
    pair = pair_for("left", 0x1000, **fixed)
    tunnel.left.path.delete_sas(tuple(name_of(one) for one in pair), done_well)
    tunnel.left.path.add_sas(pair, done_well)  # as after a restart: its numbers begin at one again
    assert all(arrives(tunnel) for _ in range(3))


def test_all_or_none_is_installed(tunnel: Tunnel) -> None:
    inward, outward = pair_for("left", 0x1000)
    tunnel.left.path.add_sas((outward,), done_well)
    reasons: list[str] = []
    tunnel.left.path.add_sas((inward, outward), reasons.append)
    assert "File exists" in reasons[0]
    assert {one.name for one in tunnel.left.path.installed_sas()} == {name_of(outward)}


def test_deleting_twice_is_well_and_foreign_sas_stay(tunnel: Tunnel) -> None:
    left = tunnel.left.namespace
    left.ip(
        *("xfrm", "state", "add", "src", "10.9.0.1", "dst", "10.9.0.2", "proto", "esp", "spi", "0x7777", "reqid", "77"),
        *("mode", "tunnel", "aead", "rfc4106(gcm(aes))", "0x" + "11" * 20, "128"),
    )
    inward, outward = pair_for("left", 0x1000)
    tunnel.left.path.add_sas((inward, outward), done_well)
    assert {one.rule_id for one in tunnel.left.path.installed_sas()} == {1}
    for _ in range(2):
        tunnel.left.path.delete_sas((name_of(inward), name_of(outward)), done_well)
    assert tunnel.left.path.installed_sas() == ()
    tunnel.left.path.add_sas((inward, outward), done_well)
    assert left.call(clean.remove_everything).lines() == ["removed 2 SAs", "removed 5 policies"]
    assert "0x00007777" in left.ip("xfrm", "state")


def test_a_new_agent_finds_the_sas_and_traffic_goes_on(tunnel: Tunnel) -> None:
    install(tunnel, 0x1000)
    successor = start_host(tunnel.left.namespace)
    pair = pair_for("left", 0x1000)
    assert {one.name for one in successor.path.installed_sas()} == {name_of(one) for one in pair}
    successor.path.restore_sas(pair, never_lost)
    assert successor.expires == []
    assert arrives(tunnel)
    successor.path.leave()


def test_a_restored_outbound_sa_that_was_missing_is_to_be_rekeyed(tunnel: Tunnel) -> None:
    pair = pair_for("left", 0x1000)
    tunnel.left.path.restore_sas(pair, never_lost)
    assert tunnel.left.expires == [Expire(sa=name_of(pair[1]), hard=False)]
    assert len(tunnel.left.path.installed_sas()) == 2


def test_several_selectors_and_another_inner_family_are_left_to_the_policies(tunnel: Tunnel) -> None:
    wide = pair_for("left", 0x1000, local=(selector("10.1.0.0/24"), selector("fd01::/64")))
    tunnel.left.path.add_sas(wide, done_well)
    assert "flag af-unspec" in tunnel.left.namespace.ip("xfrm", "state")
    inner6 = pair_for("left", 0x2000, local=(selector("fd01::/64"),), remote=(selector("fd02::/64"),))
    tunnel.left.path.add_sas(inner6, done_well)
    assert "sel src fd01::/64 dst fd02::/64" in tunnel.left.namespace.ip("xfrm", "state")


def test_transport_mode_protects_the_hosts_themselves(tunnel: Tunnel) -> None:
    hosts = {"local": ("10.9.0.1/32",), "remote": ("10.9.0.2/32",)}
    tunnel.left.path.install_policy(policy(rule(1, mode=Mode.TRANSPORT, **hosts), generation=2))
    ends = {"local": (selector("10.9.0.1/32"),), "remote": (selector("10.9.0.2/32"),)}
    tunnel.left.path.add_sas(pair_for("left", 0x1000, mode=Mode.TRANSPORT, **ends), done_well)
    tunnel.left.namespace.run("ping", "-c", "1", "-W", "1", "10.9.0.2", check=False)
    assert usage(tunnel.left, pair_for("left", 0x1000)[1]).packets == 1
