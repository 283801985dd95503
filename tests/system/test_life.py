"""What ipsec_setup(8) promises, row by row (O1-O9, O16-O19, O22-O28). Accidents and the table have their own files."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.ownership import ROUTE_PROTOCOL, TUN_INTERFACE
from ipc.roles import Role
from tests.lab.instance import IPSECCTL, Instance, NetworkState, leftovers
from tests.lab.namespaces import WIRE, gateways
from tests.lab.operator import add_foreign_objects, operate
from tests.lab.ping import ping
from tests.lab.spd import IPV4, Pair
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
ROOT = Path(__file__).resolve().parents[2]
IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
AT_START = Pair(rule_settings='start = "at-start"')


@pytest.fixture
def instance() -> Iterator[Instance]:
    with gateways() as wire, Instance(wire.left) as made:
        made.write_spd(IPV4.left_spd())
        yield made


def start(instance: Instance) -> None:
    said = operate(instance, "start", "--spd", str(instance.spd))
    assert said.code == 0, said.text


def test_o1_o2_o3_one_command_starts_restarts_reloads_asks_and_stops(instance: Instance) -> None:
    steps = (
        (("--start", "--spd", str(instance.spd)), "ipsecd: started:"),
        (("--status",), "IPsec running"),
        (("--reload",), "is in force"),
        (("--force-reload",), "is in force"),
        (("--restart",), "ipsecd: started:"),
        (("--condrestart",), "ipsecd: started:"),
        (("--try-restart",), "ipsecd: started:"),
        (("--version",), "ipsecd "),
        (("--stop",), "IPsec stopped"),
        (("--condrestart",), "IPsec is not running: nothing to restart"),
    )
    for arguments, expected in steps:
        said = operate(instance, *arguments)
        assert expected in said.text
        # A role that was started again a moment ago is strange; a restart of everything is not.
        assert said.code == 0, said.text


def test_o4_o5_o6_agent_loader_and_worker_come_into_force_in_this_order(instance: Instance) -> None:
    start(instance)
    lines = instance.log().splitlines()
    steps = ("policy 1 is enforced", "policy 1 is in force", "ike_worker is ready", "ipsecd: started:")
    # Each role writes when its round is over: the time at the head of a line is that of the step.
    times = [next(line[:23] for line in lines if step in line) for step in steps]
    assert times == sorted(times)
    assert sum("policy 1 is enforced" in line for line in lines) == 1


def test_o7_start_negotiates_what_is_to_start_without_any_packet() -> None:
    with two_instances(left_spd=AT_START.left_spd()) as two:
        two.left.wait_for_tunnel()


def test_o7_start_does_not_wait_for_a_peer_that_is_dead(instance: Instance) -> None:
    instance.write_spd(AT_START.left_spd())
    started_at = time.monotonic()
    start(instance)
    assert time.monotonic() - started_at < 20
    assert instance.status()["phase"] == "running"


def test_o8_stop_tells_the_peer_and_removes_only_what_is_ours() -> None:
    with two_instances() as two:
        add_foreign_objects(two.wire.left)
        wait_until("the tunnel is up", lambda: ping(two.wire.left, "10.2.0.1", source="10.1.0.1").received == 1)
        two.right.wait_for_tunnel()
        before = NetworkState.of(two.wire.right).things
        stopped_at = time.monotonic()
        assert operate(two.left, "stop").code == 0
        assert time.monotonic() - stopped_at < 20
        # The peer was told: its liveness check (off in this SPD) has no part in this.
        wait_until("the peer's tunnel is gone", lambda: two.right.tunnels() == [])
        assert two.right.status()["phase"] == "running"
        assert {one for one in before if one.startswith("socket")} <= NetworkState.of(two.wire.right).things
        assert "192.0.2.0/24" in two.wire.left.ip("xfrm", "policy")


def test_o8_stop_with_a_peer_that_is_dead_takes_no_longer_than_ten_seconds() -> None:
    with two_instances() as two:
        wait_until("the tunnel is up", lambda: ping(two.wire.left, "10.2.0.1", source="10.1.0.1").received == 1)
        two.right.kill(Role.SUPERVISOR)
        stopped_at = time.monotonic()
        assert operate(two.left, "stop").code == 0
        assert time.monotonic() - stopped_at < 20


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (IPV4.left_spd().replace('mode = "tunnel"', 'mode = "tunel"'), 1, "mode"),
        (IPV4.left_spd().replace(f'"{WIRE}"', '"eth77"'), 1, "the policy names interface eth77; this host has"),
        ("", 6, "No such file or directory"),
    ],
    ids=["mistake", "interface", "missing"],
)
def test_o9_nothing_is_stopped_for_a_policy_that_could_not_be_started(
    instance: Instance, wrong: str, code: int, said: str
) -> None:
    start(instance)
    before = instance.roles()
    if wrong:
        instance.write_spd(wrong)
    else:
        instance.spd.unlink()
    for command in ("restart", "condrestart"):
        done = operate(instance, command)
        assert done.code == code
        assert said in done.text
        assert done.lines[-1] == "ipsecctl: not restarted: the policy file is not good"
    assert instance.roles() == before


def test_o9_nothing_is_stopped_for_a_data_path_that_can_not_be_had(instance: Instance) -> None:
    start(instance)
    if instance.status()["data_path"]["kind"] == "kernel":
        pytest.skip("this kernel has ESP")
    before = instance.roles()
    instance.write_spd(IPV4.left_spd(data_path="kernel"))
    done = operate(instance, "restart")
    assert done.code == 1
    assert 'the policy says data_path = "kernel", but kernel-esp can\'t be had here' in done.text
    assert done.lines[-1] == "ipsecctl: not restarted: this machine lacks what the policy wants"
    assert instance.roles() == before


def test_o9_restart_is_a_stop_and_a_start_with_the_same_policy_file(instance: Instance) -> None:
    start(instance)
    before = instance.roles()
    said = operate(instance, "restart")
    assert said.code == 0
    assert said.lines.index("IPsec stopped") < next(n for n, line in enumerate(said.lines) if "started:" in line)
    assert {one.pid for one in before}.isdisjoint(one.pid for one in instance.roles())
    assert instance.status()["policy"]["path"] == str(instance.spd)


def test_o16_o17_o18_stop_of_what_does_not_run_complains_in_two_lines_and_exits_1(instance: Instance) -> None:
    said = operate(instance, "stop")
    assert said.code == 1
    assert said.lines == [
        f"ipsecctl: IPsec is not running: no process holds {instance.directory}/ipsecd.lock",
        "ipsecctl: cleaning up anyway",
    ]


def test_o19_an_interface_that_is_not_there_is_named_with_those_that_are(instance: Instance) -> None:
    at_first = NetworkState.of(instance.namespace)
    instance.write_spd(IPV4.left_spd().replace(f'"{WIRE}"', '"eth77"'))
    said = operate(instance, "start", "--spd", str(instance.spd))
    assert said.code == 1
    assert f"the policy names interface eth77; this host has lo, {WIRE}" in said.text
    assert leftovers(instance, at_first) == []


def test_o26_routes_for_protected_nets_come_with_start_and_go_with_stop(instance: Instance) -> None:
    namespace = instance.namespace

    def way(destination: str) -> str:
        """The device that routing chooses for packets from our net."""
        return namespace.ip("route", "get", destination, "from", "10.1.0.1").split(" dev ")[1].split()[0]

    def ours() -> list[str]:
        return namespace.ip("route", "show", "table", "all", "proto", str(ROUTE_PROTOCOL)).splitlines()

    namespace.ip("route", "add", "10.77.0.0/24", "via", "10.9.0.2")
    at_first = namespace.ip("route", "show", "table", "all")
    assert (way("10.2.0.1"), way("10.77.0.1"), ours()) == (WIRE, WIRE, [])
    start(instance)
    by_tun = instance.status()["data_path"]["kind"] == "userspace"
    # The kernel's own ESP takes packets where they are, and needs no routes.
    assert (way("10.2.0.1"), bool(ours())) == ((TUN_INTERFACE, True) if by_tun else (WIRE, False))
    assert way("10.77.0.1") == WIRE
    assert operate(instance, "stop").code == 0
    assert (way("10.2.0.1"), namespace.ip("route", "show", "table", "all")) == (WIRE, at_first)


@pytest.mark.parametrize(
    ("before", "wish", "during"), [("0", "on", "1"), ("1", "off", "0"), ("1", "leave", "1"), ("0", "leave", "0")]
)
def test_o22_ip_forward_is_as_the_policy_says_and_put_back_at_stop(
    instance: Instance, before: str, wish: str, during: str
) -> None:
    instance.write_spd(IPV4.left_spd().replace("[setup]", f'[setup]\nip_forward = "{wish}"'))
    set_forwarding(instance, before)
    start(instance)
    assert forwarding(instance) == during
    assert operate(instance, "stop").code == 0
    assert forwarding(instance) == before


def test_o22_ip_forward_outlives_two_supervisors_that_died_and_is_put_back_after_all(instance: Instance) -> None:
    instance.write_spd(IPV4.left_spd().replace("[setup]", '[setup]\nip_forward = "on"'))
    set_forwarding(instance, "0")
    for _ in range(2):
        start(instance)
        instance.die()
    assert forwarding(instance) == "1"
    said = operate(instance, "stop")
    assert "  ip_forward is 0 again" in said.lines
    assert forwarding(instance) == "0"


def test_o22_a_reload_may_change_ip_forward(instance: Instance) -> None:
    set_forwarding(instance, "0")
    start(instance)
    instance.write_spd(IPV4.left_spd().replace("[setup]", '[setup]\nip_forward = "on"'))
    assert operate(instance, "reload").code == 0
    assert forwarding(instance) == "1"
    instance.write_spd(IPV4.left_spd())
    assert operate(instance, "reload").code == 0
    assert forwarding(instance) == "0"


def forwarding(instance: Instance) -> str:
    return instance.namespace.run("cat", IP_FORWARD).strip()


def set_forwarding(instance: Instance, value: str) -> None:
    instance.namespace.run("sh", "-c", f"echo {value} > {IP_FORWARD}")


def test_o23_o24_o25_of_starts_at_once_one_wins_and_the_others_name_it(instance: Instance) -> None:
    command = [str(IPSECCTL), "--instance", str(instance.directory), "start", "--spd", str(instance.spd)]
    starts = [
        subprocess.Popen(instance.namespace.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60)[0].decode() for process in starts]
    assert [process.returncode for process in starts] == [0, 0, 0]
    supervisors = [one for one in instance.roles() if one.role is Role.SUPERVISOR]
    assert len(supervisors) == 1
    assert sum("ipsecd: started:" in output for output in outputs) == 1
    assert sum(f"ipsecd is already running (pid {supervisors[0].pid})" in output for output in outputs) == 2


def test_o23_nothing_in_the_run_directory_is_executed(instance: Instance) -> None:
    instance.directory.mkdir(mode=0o711)
    for name in ("supervisor.py", "ipc.py", "sitecustomize.py", "state.json", "ipsecd.lock"):
        (instance.directory / name).write_text(f"import os\nopen({str(instance.spd.parent / 'ran')!r}, 'w')\n")
    said = subprocess.run(
        instance.namespace.command(str(IPSECCTL), "--instance", ".", "start", "--spd", str(instance.spd)),
        cwd=instance.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert operate(instance, "stop").code == 0
    assert not (instance.spd.parent / "ran").exists()


SYSLOG_RUNNER = """\
import sys
from ipsecctl import record
from ipsecctl.__main__ import main
record.SYSLOG_SOCKET = sys.argv[1]
sys.exit(main(sys.argv[2:]))
"""


def run_with_syslog(instance: Instance, syslog: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        instance.namespace.command(
            *(sys.executable, "-P", "-c", SYSLOG_RUNNER, str(syslog)),
            *("--instance", str(instance.directory), *arguments),
        ),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_o27_o28_start_and_stop_are_recorded_on_stdout_and_in_syslog(instance: Instance) -> None:
    path = instance.spd.parent / "log.socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(path))
        syslog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        syslog.settimeout(1)
        for command in (("start", "--spd", str(instance.spd)), ("stop",)):
            said = run_with_syslog(instance, path, *command)
            assert said.returncode == 0, said.stdout
            lines = [line.strip() for line in said.stdout.splitlines()]
            records = received(syslog)
            assert all(record.startswith("<30>") and "\n" not in record for record in records)
            texts = [record.partition(" ipsec_setup[")[2].partition("]: ")[2] for record in records]
            # All of stdout, in its order, and some detail that is on syslog only.
            assert [text[:800] for text in texts if text in lines] == [line[:800] for line in lines]
            assert f"{command[0]} of {instance.directory}" in texts[0]
            assert texts[0] not in lines


def received(syslog: socket.socket) -> list[str]:
    syslog.setblocking(False)
    records = []
    while True:
        try:
            records.append(syslog.recv(4096).decode())
        except BlockingIOError:
            return records


def test_o27_without_a_syslog_daemon_nothing_is_lost_or_delayed(instance: Instance) -> None:
    said = run_with_syslog(instance, Path("/nonexistent"), "start", "--spd", str(instance.spd))
    assert (said.returncode, "ipsecd: started:" in said.stdout) == (0, True)
    assert "ipsecd: started:" in instance.log()


def test_o27_a_syslog_daemon_that_does_not_read_delays_nothing_for_long(instance: Instance) -> None:
    path = instance.spd.parent / "log.socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.connect(str(path))
            filler.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    filler.send(b"full")
            started_at = time.monotonic()
            said = run_with_syslog(instance, path, "stop")
            assert time.monotonic() - started_at < 20
    assert (said.returncode, len(said.stdout.splitlines())) == (1, 2)
