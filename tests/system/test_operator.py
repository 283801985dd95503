"""What an operator asks of SAs, on two real instances: up, list, rekey, monitor, down, and why something failed."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pytest

from ipc.roles import Role
from tests.lab.instance import IPSECCTL, Instance
from tests.lab.ping import ping
from tests.lab.spd import IPV4
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
DEAD_PEER = """
[peers.dead]
address = "10.9.0.77"
local_id = "left.example"
remote_id = "dead.example"
auth = "psk"
psk = "a pre-shared key of nobody, 77"

[[rules]]
name = "nobody"
action = "protect"
local = ["10.1.0.0/24"]
remote = ["10.77.0.0/24"]
peer = "dead"
"""


def asked(instance: Instance, *arguments: str) -> Any:
    """The JSON that ipsecctl gives, whatever its exit code."""
    return json.loads(instance.ctl(*arguments, "--json", check=False, timeout_s=120.0))


@contextlib.contextmanager
def monitored(instance: Instance) -> Iterator[IO[str]]:
    """What `ipsecctl monitor --json` writes meanwhile."""
    with tempfile.TemporaryFile("w+") as output:
        command = (str(IPSECCTL), "--instance", str(instance.directory), "monitor", "--json")
        process = subprocess.Popen(instance.namespace.command(*command), stdout=output, stdin=subprocess.DEVNULL)
        try:
            wait_until("the monitor listens", lambda: "monitoring" in kinds(output), timeout_s=60.0)
            yield output
        finally:
            process.kill()
            process.wait()


def events(output: IO[str]) -> list[Any]:
    """The events so far; a line that is being written is not read yet."""
    output.seek(0)
    return [json.loads(line) for line in output.read().splitlines(keepends=True) if line.endswith("\n")]


def kinds(output: IO[str]) -> list[str]:
    """What has happened so far."""
    return [event["kind"] for event in events(output)]


def test_an_operator_takes_a_tunnel_up_lists_rekeys_and_ends_it() -> None:
    with two_instances(left_spd=IPV4.left_spd() + DEAD_PEER) as two, monitored(two.left) as output:
        left = two.left
        assert asked(left, "up", "nets", "--timeout", "60") == {"done": True, "lines": ["nets is up"]}
        assert ping(two.wire.left, RIGHT, source=LEFT, count=5, interval_s=0.01).lost == 0

        (ike_sa,) = asked(left, "list")["ike_sas"]
        (child,) = ike_sa["children"]
        assert (ike_sa["peer"], ike_sa["state"], child["rule"], child["state"]) == (
            "other",
            "established",
            "nets",
            "installed",
        )
        assert child["local"] == ["10.1.0.0-10.1.0.255"]
        assert child["inbound"]["packets"] >= 5 and child["outbound"]["packets"] >= 5
        assert child["rekey_in_s"] > 60
        text = left.ctl("list")
        assert child["spi_in"] in text and ike_sa["spi_i"] in text and "packets" in text

        assert asked(left, "rekey", child["spi_out"], "--timeout", "60")["done"]
        assert asked(left, "rekey", "other", "--timeout", "60")["done"]
        (fresh,) = asked(left, "list")["ike_sas"]
        installed = [one for one in fresh["children"] if one["state"] == "installed"]
        assert fresh["spi_i"] != ike_sa["spi_i"]
        assert [one["spi_in"] != child["spi_in"] for one in installed] == [True]
        assert ping(two.wire.left, RIGHT, source=LEFT, count=5, interval_s=0.01).lost == 0

        down = asked(left, "down", "nets", "--timeout", "60")
        assert down["done"] and "next packet" in down["lines"][0]
        ended = [one for sa in asked(left, "list")["ike_sas"] for one in sa["children"]]
        assert not [one for one in ended if one["state"] == "installed"]
        assert asked(left, "down", "other", "--timeout", "60")["done"]
        wait_until("both have no SA", lambda: not two.left.tunnels() and not two.right.tunnels(), timeout_s=60.0)

        waiting = asked(left, "up", "nobody", "--timeout", "1")
        assert not waiting["done"]
        assert "10.9.0.77:500 has not answered IKE_SA_INIT yet" in waiting["lines"][-1]
        assert not asked(left, "up", "no-such-rule")["done"]

        told = [
            *("ike-sa-established", "child-sa-established", "child-sa-rekeyed", "ike-sa-rekeyed"),
            *("child-sa-closed", "ike-sa-closed"),
        ]
        wait_until("the monitor has told all", lambda: set(told) <= set(kinds(output)), timeout_s=60.0)
        left.ctl("reload")
        wait_until("the reload is told", lambda: "policy-enforced" in kinds(output), timeout_s=60.0)
        left.kill(Role.IKE_WORKER)
        wait_until("its end is told", lambda: {"role-down", "role-up"} <= set(kinds(output)), timeout_s=60.0)
        before = kinds(output).count("ike-sa-established")
        wait_until("its successor can be asked", lambda: bool(asked(left, "up", "nets")["done"]), timeout_s=60.0)
        wait_until("it tells", lambda: kinds(output).count("ike-sa-established") > before, timeout_s=60.0)
        left.ctl("secure")
        wait_until("secure mode is told", lambda: "secure-mode-on" in kinds(output), timeout_s=60.0)
        left.ctl("insecure", "--yes")
        wait_until("and its end", lambda: "secure-mode-off" in kinds(output), timeout_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """How the left SPD differs, and what the right side must say of that."""

    name: str
    changes: dict[str, str]
    notify: str
    ours: str
    theirs: str
    difference: str


MISMATCHES = (
    Mismatch(
        name="IKE proposals",
        changes={"ike": "aes256gcm16-prfsha256-ecp256"},
        notify="NO_PROPOSAL_CHOSEN",
        ours="aes256gcm16-prfsha256-x25519",
        theirs="aes256gcm16-prfsha256-ecp256",
        difference="key exchange: ours x25519, theirs ecp256",
    ),
    Mismatch(
        name="ESP proposals",
        changes={"esp": "aes128gcm16"},
        notify="NO_PROPOSAL_CHOSEN",
        ours="aes256gcm16-esn",
        theirs="aes128gcm16",
        difference="encryption: ours aes256gcm16, theirs aes128gcm16",
    ),
    Mismatch(
        name="PSK",
        changes={"auth": 'auth = "psk"\npsk = "another pre-shared key, 9d1f7a"'},
        notify="AUTHENTICATION_FAILED",
        ours="must be left.example",
        theirs="left.example",
        difference="pre-shared key",
    ),
    Mismatch(
        name="identity",
        changes={"local_id": 'local_id = "stranger.example"'},
        notify="AUTHENTICATION_FAILED",
        ours="must be left.example",
        theirs="stranger.example",
        difference="stranger.example is not left.example",
    ),
    Mismatch(
        name="selectors",
        changes={},
        notify="TS_UNACCEPTABLE",
        ours="10.1.0.0/24",
        theirs="10.99.0.0/24",
        difference="remote of rule nets: ours 10.1.0.0/24, theirs 10.99.0.0/24",
    ),
)


def left_spd(case: Mismatch) -> str:
    """The left SPD of a case."""
    spd = IPV4.left_spd(**case.changes)
    return spd if case.changes else spd.replace('local = ["10.1.0.0/24"]', 'local = ["10.99.0.0/24"]')


def test_why_shows_both_lists_on_the_side_that_refuses_and_ours_on_the_other() -> None:
    with two_instances() as two:
        for case in MISMATCHES:
            two.left.write_spd(left_spd(case))
            two.left.ctl("reload")
            # With another pre-shared key an IKE SA that stands goes on until it is made anew.
            assert asked(two.left, "down", "other", "--timeout", "60")["done"]
            up = asked(two.left, "up", "nets", "--timeout", "60")
            assert not up["done"], (case.name, up)

            refused = asked(two.right, "why", "other")
            assert (refused["notify"], refused["by_peer"]) == (case.notify, False), (case.name, refused)
            assert any(case.ours in line for line in refused["ours"]), (case.name, refused)
            assert any(case.theirs in line for line in refused["theirs"]), (case.name, refused)
            assert case.difference in refused["difference"] and refused["remedy"], (case.name, refused)
            assert f"differs: {refused['difference']}" in two.right.log(), case.name

            told = asked(two.left, "why", "nets")
            assert (told["notify"], told["by_peer"], told["theirs"]) == (case.notify, True, []), (case.name, told)
            assert told["ours"] and "its own log" in told["remedy"], (case.name, told)
            text = two.right.ctl("why", "other")
            assert "differs: " in text and "remedy: " in text

        two.right.write_spd(IPV4.right_spd(ike="aes256gcm16-prfsha256-ecp256"))
        two.right.ctl("reload")
        two.left.write_spd(IPV4.left_spd())
        two.left.ctl("reload")
        two.right.ctl("down", "other", "--timeout", "60")
        assert not asked(two.right, "up", "nets", "--timeout", "60")["done"]
        last = asked(two.left, "why", "other")
        assert last["difference"] == "key exchange: ours x25519, theirs ecp256" and len(last["earlier"]) >= 3

        # Another worker knows it too; what an operator has ended is saved at once, and with it what has failed.
        assert asked(two.left, "down", "nets", "--timeout", "60")["done"]
        two.left.wait_for_successor(two.left.kill(Role.IKE_WORKER))
        again = asked(two.left, "why", "other")
        assert (again["difference"], len(again["earlier"])) == (last["difference"], len(last["earlier"]))
