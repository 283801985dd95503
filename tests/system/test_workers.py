"""Several IKE workers on both sides: each has some of the tunnels, and one that dies costs nothing."""

import json
from typing import Any

import pytest

from ipc.roles import SPI_STEER_BYTE, Role
from tests.lab.instance import Instance
from tests.lab.namespaces import WIRE
from tests.lab.ping import RunningPing, ping
from tests.lab.spd import PSK
from tests.lab.two import Two, two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
WORKERS = 2
NUMBERS = range(1, 9)


def spd(*, left: bool, workers: int = WORKERS) -> str:
    """Eight peers at one address, told apart by their identities; the left side calls them."""
    here, there = ("left", "right") if left else ("right", "left")
    other = "10.9.0.2" if left else "10.9.0.1"
    own_net, other_net = ("10.1.0", "10.2.0") if left else ("10.2.0", "10.1.0")
    lines = ["[setup]", f'interfaces = ["{WIRE}"]', 'unmatched = "bypass"', f"ike_workers = {workers}"]
    for number in NUMBERS:
        lines += [f"[peers.p{number}]", f'address = "{other}"', 'auth = "psk"', f'psk = "{PSK}{number}"']
        lines += [f'local_id = "{here}{number}.example"', f'remote_id = "{there}{number}.example"', 'liveness = "2s"']
    for number in NUMBERS:
        lines += ["[[rules]]", f'name = "net{number}"', 'action = "protect"', f'peer = "p{number}"']
        lines += [f'local = ["{own_net}.{number}"]', f'remote = ["{other_net}.{number}"]']
        lines += ['start = "at-start"' if left else 'start = "respond-only"']
    return "\n".join(lines) + "\n"


def listed(instance: Instance) -> list[Any]:
    """What `ipsecctl list --json` has: IKE SAs that stand, by peer."""
    found = json.loads(instance.ctl("list", "--json"))["ike_sas"]
    return sorted((one for one in found if one["state"] == "established"), key=lambda one: str(one["peer"]))


def own_spis(instance: Instance) -> dict[str, str]:
    """Of each peer's IKE SA, by peer, our own SPI."""
    return {one["peer"]: one["spi_i"] if one["initiator"] else one["spi_r"] for one in listed(instance)}


def workers_of(spis: dict[str, str]) -> dict[str, int]:
    """The worker of each peer's IKE SA."""
    return {peer: bytes.fromhex(spi)[SPI_STEER_BYTE] % WORKERS for peer, spi in spis.items()}


def all_up(two: Two) -> bool:
    """Whether each rule has its Child SA on both sides."""
    return all(
        len(one.tunnels()) == len(NUMBERS) and all(len(tunnel.children) == 1 for tunnel in one.tunnels())
        for one in (two.left, two.right)
    )


def role_of(instance: Instance, name: str) -> Any:
    """The process of this name, as status has it."""
    return next(one for one in instance.status()["roles"] if one["role"] == name)


def kill(instance: Instance, name: str) -> None:
    """Kills a worker by its name, and waits for its successor."""
    pid = role_of(instance, name)["pid"]
    instance.kill_process(next(one for one in instance.roles() if one.pid == pid))

    def is_back() -> bool:
        now = role_of(instance, name)
        return now["state"] == "up" and now["pid"] != pid

    wait_until(f"{name} is back", is_back, every_s=0.1)


def test_two_workers_share_the_tunnels_and_each_may_die() -> None:
    with two_instances(left_spd=spd(left=True), right_spd=spd(left=False)) as two:
        for namespace, net in ((two.wire.left, "10.1.0"), (two.wire.right, "10.2.0")):
            for number in NUMBERS[1:]:
                namespace.ip("address", "add", f"{net}.{number}/32", "dev", "lo")
        wait_until("all tunnels are up", lambda: all_up(two), timeout_s=60.0, every_s=0.2)
        before = [own_spis(two.left), own_spis(two.right)]
        for spis in before:
            assert set(workers_of(spis).values()) == set(range(WORKERS)), spis
        assert sum(one.role is Role.IKE_WORKER for one in two.left.roles()) == WORKERS
        for number in NUMBERS:
            assert ping(two.wire.left, f"10.2.0.{number}", source=f"10.1.0.{number}", wait_s=5.0).received == 1

        of_worker = workers_of(before[0])
        tried = [next(peer for peer, worker in of_worker.items() if worker == index) for index in range(WORKERS)]
        pings = [
            RunningPing(two.wire.left, f"10.2.0.{peer[1:]}", source=f"10.1.0.{peer[1:]}", count=400, interval_s=0.01)
            for peer in tried
        ]
        kill(two.left, "ike_worker-1")
        kill(two.right, "ike_worker")
        for one in pings:
            assert one.finish().lost == 0
        assert [own_spis(two.left), own_spis(two.right)] == before

        for peer in tried:
            two.left.ctl("rekey", peer)
        after = own_spis(two.left)
        assert workers_of(after) == of_worker
        assert {peer for peer, spi in after.items() if spi != before[0][peer]} == set(tried)
        two.right.ctl("rekey", "net1")
        two.left.ctl("down", "p1")
        wait_until("the right side has one less", lambda: len(listed(two.right)) == len(NUMBERS) - 1, every_s=0.1)
        assert [one["peer"] for one in listed(two.left)] == [f"p{number}" for number in NUMBERS[1:]]
        two.left.ctl("up", "net1")
        assert len(listed(two.left)) == len(NUMBERS)
        assert "no protect rule" in two.left.ctl("up", "no-such-rule", check=False)

        two.right.write_spd(spd(left=False, workers=3))
        assert "ike_workers = 3 takes effect with the next start only" in two.right.ctl("reload")
        assert len(listed(two.right)) == len(NUMBERS)
        said = two.left.stop()
        assert "SIGTERM" not in said, said
        wait_until("the right side has been told", lambda: not two.right.tunnels(), every_s=0.1)
