"""A policy is changed under traffic: only what differs is touched, nothing else is lost, and nothing is in clear."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ipc import status_socket
from ipc.messages import ReloadCommand
from ipc.roles import Role
from ipsecctl.client import ask
from tests.lab.datagrams import RunningFlood
from tests.lab.instance import Instance
from tests.lab.namespaces import WIRE
from tests.lab.ping import RunningPing, ping
from tests.lab.spd import LEFT_ID, PSK, RIGHT_ID
from tests.lab.two import Two, two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule between the hosts of this number on both sides."""

    name: str
    host: int
    more: str = ""


KEPT, OTHER = Rule(name="kept", host=1), Rule(name="other", host=2)
CHANGED, REMOVED, ADDED = Rule(name="changed", host=3), Rule(name="removed", host=4), Rule(name="added", host=5)


def spd(side: str, *rules: Rule) -> str:
    own, other = ("1", "2") if side == "left" else ("2", "1")
    own_id, other_id = (LEFT_ID, RIGHT_ID) if side == "left" else (RIGHT_ID, LEFT_ID)
    head = f"""\
[setup]
interfaces = ["{WIRE}"]
unmatched = "bypass"

[peers.peer]
address = "10.9.0.{other}"
local_address = "10.9.0.{own}"
local_id = "{own_id}"
remote_id = "{other_id}"
auth = "psk"
psk = "{PSK}"
"""
    return head + "".join(
        f"""
[[rules]]
name = "{rule.name}"
action = "protect"
local = ["10.{own}.0.{rule.host}"]
remote = ["10.{other}.0.{rule.host}"]
peer = "peer"
{rule.more}
"""
        for rule in rules
    )


LEFT_BEFORE = spd("left", KEPT, CHANGED, REMOVED, OTHER)
LEFT_AFTER = spd("left", ADDED, KEPT, Rule(name="changed", host=3, more='rekey = "17m"'), OTHER)
LEFT_LARGE = spd("left", ADDED, KEPT, OTHER, *(Rule(name=f"more{host}", host=host) for host in range(100, 120)))
RIGHT = spd("right", KEPT, CHANGED, REMOVED, OTHER, ADDED)
ANSWER_WITHIN_S = 30.0


def broken_at_each_line(text: str) -> Iterator[tuple[int, str]]:
    """The number of each line, and the file where that line is wrong: no TOML, or a key that there is not."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        wrong = f"x{line}" if "=" in line and number % 2 else f"{line} = [[}}"
        if line:
            yield number, "\n".join([*lines[: number - 1], wrong, *lines[number:]])


def report(instance: Instance) -> Any:
    """The status, without a command."""
    return json.loads(status_socket.ask(str(instance.directory), ANSWER_WITHIN_S))


def sas(instance: Instance) -> dict[str, str]:
    """The SPIs of each rule's Child SA."""
    children = (child for tunnel in report(instance)["tunnels"] for child in tunnel["children"])
    return {child["rule"]: f"in {child['spi_in']} out {child['spi_out']}" for child in children}


def comes_up(two: Two, *rules: Rule) -> None:
    for rule in rules:
        source, destination = f"10.1.0.{rule.host}", f"10.2.0.{rule.host}"
        wait_until(
            f"rule {rule.name} is up",
            lambda source=source, destination=destination: (
                ping(two.wire.left, destination, source=source, wait_s=2.0).received == 1
            ),
            timeout_s=30,
        )
    for instance in (two.left, two.right):
        wait_until("status has them all", lambda one=instance: {rule.name for rule in rules} <= set(sas(one)))


def codes(instance: Instance) -> list[str]:
    return [finding["code"] for finding in instance.status()["findings"]]


def test_t28_t29_t30_t36_a_reload_under_a_flood_touches_what_differs_and_nothing_else() -> None:
    with two_instances(left_spd=LEFT_BEFORE, right_spd=RIGHT) as two:
        comes_up(two, KEPT, CHANGED, REMOVED, OTHER)
        before, there = sas(two.left), sas(two.right)
        assert set(before) == set(there) == {"kept", "changed", "removed", "other"}
        two.left.write_spd(LEFT_AFTER)

        planned = json.loads(two.left.ctl("reload", "--dry-run", "--json"))["plan"]
        assert {kind: planned["changes"][kind] for kind in ("added", "changed", "removed")} == {
            "added": ["added"],
            "changed": ["changed"],
            "removed": ["removed"],
        }
        cut = {one["rule"]: f"in {one['spi_in']} out {one['spi_out']}" for one in planned["cut"]}
        assert cut == {name: before[name] for name in ("changed", "removed")}
        assert sas(two.left) == before

        flood = RunningFlood(two.wire.left, "10.1.0.1", two.wire.right, "10.2.0.1")
        pings = RunningPing(two.wire.left, "10.2.0.2", source="10.1.0.2", count=300, interval_s=0.01, wait_s=10.0)
        restless = RunningPing(two.wire.left, "10.2.0.3", source="10.1.0.3", count=300, interval_s=0.01, wait_s=2.0)
        assert "is in force: 4 rules" in two.left.ctl("reload")
        pinged, _ = pings.finish(), restless.finish()
        assert flood.running()
        counted = flood.finish()
        assert (counted.received, counted.refused) == (counted.sent, 0), str(counted)
        assert pinged.lost == 0, str(pinged)
        comes_up(two, ADDED, CHANGED)
        after = sas(two.left)
        assert {name: after[name] for name in ("kept", "other")} == {name: before[name] for name in ("kept", "other")}
        assert "removed" not in after
        assert after["changed"] != before["changed"]
        wait_until("the peer was told by DELETE", lambda: "removed" not in sas(two.right), timeout_s=30)
        assert {name: sas(two.right)[name] for name in ("kept", "other")} == {
            name: there[name] for name in ("kept", "other")
        }
        two.capture.stop()
        two.capture.assert_nothing_clear()
        print(f"flood: {counted}; pings: {pinged}; {two.capture.summary()}")


def test_t2_t28_t36_t39_a_reload_with_an_error_changes_nothing_and_there_are_ways_back() -> None:
    with two_instances(left_spd=LEFT_BEFORE, right_spd=RIGHT) as two:
        comes_up(two, KEPT, REMOVED)
        before = sas(two.left)
        policy = two.left.status()["policy"]
        for number, broken in broken_at_each_line(LEFT_LARGE):
            two.left.write_spd(broken)
            done = ask(str(two.left.directory), ReloadCommand(), ANSWER_WITHIN_S)
            assert done.exit_code == 1
            assert any(f"ipsec.spd:{number}:" in line for line in done.lines), (number, done.lines)
            assert (sas(two.left), report(two.left)["policy"]["sha256"]) == (before, policy["sha256"]), number
        assert codes(two.left) == ["policy-refused"]
        now = two.left.status()["policy"]
        assert (now["sha256"], now["generation"]) == (policy["sha256"], policy["generation"])
        assert sas(two.left) == before

        two.left.write_spd(LEFT_AFTER)
        supervisor = two.left.role(Role.SUPERVISOR)
        assert supervisor is not None
        os.kill(supervisor.pid, signal.SIGHUP)
        wait_until("the policy is in force", lambda: bool(two.left.status()["policy"]["sha256"] != policy["sha256"]))
        assert codes(two.left) == []
        wait_until("the SAs of the removed rule are gone", lambda: "removed" not in sas(two.left))
        two.left.ctl("policy", "rollback", "1")
        assert two.left.status()["policy"]["sha256"] == policy["sha256"]
        assert two.left.spd.read_text() == LEFT_BEFORE
        assert sas(two.left)["kept"] == before["kept"]
        comes_up(two, REMOVED)

        two.left.stop()
        two.left.ctl("start", "--spd", str(two.left.spd), "--backup")
        assert codes(two.left) == ["on-backup-policy"]
        assert two.left.status()["policy"]["path"] == f"{two.left.spd}.bak"
        two.left.ctl("reload")
        assert codes(two.left) == []
        assert two.left.status()["policy"]["sha256"] == policy["sha256"]
