"""Accidents before a stop: it cleans up all the same, touches nothing that is not ours, and says how it was (row O15).

Each accident names the exit code that the stop promises: 0 where a supervisor ran and was stopped, 1 where none did or
none answered. The machine's clock is not ours to set back: `clock_set_back` shows ipsecctl the machine through a time
namespace in which less time has passed since boot, and an accident of its own makes the files another boot's.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipc.ownership import TUN_INTERFACE
from ipc.roles import Role
from tests.lab.instance import Instance, NetworkState, leftovers
from tests.lab.namespaces import WIRE, Namespace, gateways, run
from tests.lab.operator import add_foreign_objects, operate
from tests.lab.spd import IPV4

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
SPD = IPV4.left_spd().replace("[setup]", '[setup]\nip_forward = "on"')
IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


@pytest.fixture
def instance() -> Iterator[Instance]:
    with gateways() as wire, Instance(wire.left) as made:
        add_foreign_objects(wire.left)
        yield made


@pytest.fixture
def at_first(instance: Instance) -> NetworkState:
    return NetworkState.of(instance.namespace)


def started(instance: Instance) -> None:
    instance.write_spd(SPD)
    said = operate(instance, "start", "--spd", str(instance.spd))
    assert said.code == 0, said.text
    assert instance.namespace.run("cat", IP_FORWARD).strip() == "1"


def the(instance: Instance, role: Role) -> int:
    found = instance.role(role)
    if found is None:
        pytest.skip(f"no {role} with this kernel")
    return found.pid


def kill(role: Role) -> Callable[[Instance], None]:
    def accident(instance: Instance) -> None:
        os.kill(the(instance, role), signal.SIGKILL)

    return accident


def delete_lock(instance: Instance) -> None:
    (instance.directory / "ipsecd.lock").unlink()


def make_lock_a_directory(instance: Instance) -> None:
    delete_lock(instance)
    (instance.directory / "ipsecd.lock").mkdir()


def recycle_pid(instance: Instance) -> None:
    """The supervisor is dead, and its pid is that of a process which must not be hurt: this one."""
    instance.die()
    for name in ("ipsecd.lock", "state.json"):
        path = instance.directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": os.getpid()}))


def remove_run_directory(instance: Instance) -> None:
    shutil.rmtree(instance.directory)


def delete_tun(instance: Instance) -> None:
    the(instance, Role.DATA_PATH)
    instance.namespace.ip("link", "del", TUN_INTERFACE)


def flush_policies(instance: Instance) -> None:
    instance.namespace.ip("xfrm", "policy", "flush")
    add_policies_again(instance.namespace)


def add_policies_again(namespace: Namespace) -> None:
    """The flush took those of others, too."""
    for direction in ("out", "in"):
        selector = ["src", "192.0.2.0/24", "dst", "198.51.100.0/24", "dir", direction]
        namespace.ip("xfrm", "policy", "add", *selector, "action", "block")


def remove_spd(instance: Instance) -> None:
    instance.spd.unlink()


def stop_worker(instance: Instance) -> None:
    os.kill(the(instance, Role.IKE_WORKER), signal.SIGSTOP)


def stop_supervisor(instance: Instance) -> None:
    os.kill(the(instance, Role.SUPERVISOR), signal.SIGSTOP)


def boot_again(instance: Instance) -> None:
    """Lock and saved information are those of an earlier boot, whose clock was ahead of today's."""
    instance.die()
    for name in ("ipsecd.lock", "state.json"):
        path = instance.directory / name
        earlier = {"boot_id": "00000000-0000-4000-8000-000000000000", "start_time": 1e9}
        path.write_text(json.dumps(json.loads(path.read_text()) | earlier))
        os.utime(path, (4e9, 4e9))
    # The kernel of the next boot starts with what is not saved anywhere: the setting that the machine has.
    instance.namespace.run("sh", "-c", f"echo 0 > {IP_FORWARD}")


ACCIDENTS: list[tuple[Callable[[Instance], None], int]] = [
    (kill(Role.IKE_WORKER), 0),
    (kill(Role.KERNEL_AGENT), 0),
    (kill(Role.POLICY_LOADER), 0),
    (kill(Role.DATA_PATH), 0),
    (Instance.die, 1),
    (delete_lock, 1),
    (make_lock_a_directory, 1),
    (recycle_pid, 1),
    (remove_run_directory, 1),
    (delete_tun, 0),
    (flush_policies, 0),
    (remove_spd, 0),
    (stop_worker, 0),
    (stop_supervisor, 1),
    (boot_again, 1),
]
NAMES = ["worker", "agent", "loader", "data_path", *(accident.__name__ for accident, _ in ACCIDENTS[4:])]


@pytest.mark.parametrize(("accident", "code"), ACCIDENTS, ids=NAMES)
def test_o15_stop_cleans_up_after_an_accident(
    instance: Instance, at_first: NetworkState, accident: Callable[[Instance], None], code: int
) -> None:
    started(instance)
    accident(instance)
    said = operate(instance, "stop")
    assert said.code == code, said.text
    assert_all_clean(instance, at_first)


def assert_all_clean(instance: Instance, at_first: NetworkState) -> None:
    """Nothing of ours is left, nothing of anybody else's is gone. A second stop finds nothing at all."""
    assert leftovers(instance, at_first) == []
    again = operate(instance, "stop")
    assert (again.code, len(again.lines)) == (1, 2), again.text


def test_o15_stop_with_a_full_disk(tmp_path: Path) -> None:
    with gateways() as wire, Instance(wire.left) as instance:
        at_first = NetworkState.of(wire.left)
        disk = instance.spd.parent / "disk"
        disk.mkdir(mode=0o711)
        run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0711", "tmpfs", str(disk)])
        try:
            instance.directory = disk / "run"
            started(instance)
            fill(disk)
            # A role that dies is started again, though the saved information can't be written.
            victim = instance.kill(Role.POLICY_LOADER)
            instance.wait_for_successor(victim)
            said = operate(instance, "stop")
            assert said.code == 0, said.text
            assert leftovers(instance, at_first) == []
            refused = operate(instance, "start", "--spd", str(instance.spd))
            assert refused.code == 1
            assert "No space left on device" in refused.text
            assert leftovers(instance, at_first) == []
        finally:
            for one in instance.roles():
                os.kill(one.pid, signal.SIGKILL)
            run(["umount", "-l", str(disk)])


def fill(disk: Path) -> None:
    """Leaves not one byte free."""
    with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def clock_set_back() -> tuple[str, ...]:
    """A command that runs others where the machine has been up for a thousand seconds less."""
    return ("unshare", "--fork", "--time", "--boottime", "-1000", "--monotonic", "-1000")


@pytest.mark.parametrize("alive", [True, False], ids=["running", "dead"])
def test_o15_stop_with_the_clock_set_back(instance: Instance, at_first: NetworkState, alive: bool) -> None:
    probe = subprocess.run([*clock_set_back(), "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip(f"no time namespaces here: {probe.stderr.decode()}")
    started(instance)
    if not alive:
        instance.die()
    said = operate(instance, "stop", before=clock_set_back())
    assert said.code == (0 if alive else 1), said.text
    assert_all_clean(instance, at_first)


def test_o15_a_role_that_does_not_end_is_killed_and_seen_to_be_gone(instance: Instance, at_first: NetworkState) -> None:
    started(instance)
    worker = the(instance, Role.IKE_WORKER)
    stop_worker(instance)
    said = operate(instance, "stop")
    assert f"ike_worker (pid {worker}) ended by SIGKILL" in said.text
    assert not Path(f"/proc/{worker}").exists()
    assert_all_clean(instance, at_first)


def test_o15_an_agent_that_hangs_is_killed_and_its_objects_are_removed_without_it(
    instance: Instance, at_first: NetworkState
) -> None:
    started(instance)
    os.kill(the(instance, Role.KERNEL_AGENT), signal.SIGSTOP)
    said = operate(instance, "stop")
    assert "kernel objects removed without the agent: removed" in said.text
    assert_all_clean(instance, at_first)


def test_o15_a_stop_of_one_instance_does_not_touch_another_one(instance: Instance) -> None:
    started(instance)
    before = (instance.roles(), NetworkState.of(instance.namespace))
    with Instance(instance.namespace) as other:
        other.write_spd(SPD)
        said = operate(other, "stop")
        assert said.code == 1
        assert "the kernel objects of this network namespace stay: they are those of" in said.text
        assert operate(other, "start", "--spd", str(other.spd)).code == 1
        assert operate(other, "stop").code == 1
    assert (instance.roles(), NetworkState.of(instance.namespace)) == before
    assert instance.status()["findings"] == []
    assert WIRE in instance.namespace.ip("link")


def test_o15_a_stop_from_another_network_namespace_removes_nothing_there(instance: Instance) -> None:
    started(instance)
    instance.die()
    with Namespace("elsewhere") as elsewhere, Instance(elsewhere) as other:
        other.write_spd(IPV4.left_spd().replace(f'"{WIRE}"', '"lo"'))
        assert operate(other, "start", "--spd", str(other.spd)).code == 0
        other.die()
        before = NetworkState.of(elsewhere)
        here, instance.namespace = instance.namespace, elsewhere
        said = operate(instance, "stop")
        instance.namespace = here
        assert "the instance ran in another network namespace" in said.text
        assert NetworkState.of(elsewhere) == before
    assert operate(instance, "stop").code == 1


@pytest.mark.parametrize("trouble", ["owner", "mode"])
def test_o23_a_run_directory_that_is_not_safe_is_refused_and_left_alone(instance: Instance, trouble: str) -> None:
    instance.write_spd(SPD)
    instance.directory.mkdir(mode=0o711)
    trap = instance.directory / "state.json"
    trap.write_text(json.dumps({"spd_path": "/nonexistent"}))
    if trouble == "owner":
        os.chown(instance.directory, 60701, 60701)
    else:
        instance.directory.chmod(0o777)
    reason = "belongs to uid 60701" if trouble == "owner" else "others than root may write there"
    for command, code in (("start", 1), ("stop", 1)):
        said = operate(instance, command)
        assert said.code == code
        assert reason in said.text
    assert trap.exists()
