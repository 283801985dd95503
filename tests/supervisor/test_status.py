"""The status of an instance, and what is strange about it."""

import json
import os

from ipc import messages as m
from ipc.loop import Loop
from ipc.roles import Role, uid_of
from ipc.status import FORMAT, ProcessFacts, RoleStatus, Status
from ipc.types import DataPathKind, IpForward, Mode, Secret
from supervisor.child import Child
from supervisor.child_states import ChildState
from supervisor.data_path import DataPathKeeper
from supervisor.files import FileContent
from supervisor.policy import PolicyKeeper
from supervisor.role_table import ROLE_TABLE
from supervisor.spawn import spawn
from supervisor.status import (
    policy_findings,
    policy_status,
    process_facts,
    role_findings,
    tunnel_report,
)
from supervisor.store import Store
from supervisor.tunnels import Tunnels


def tunnel(spi: bytes = b"initiatr", *, initiator: bool = True) -> m.IkeSaStatus:
    child = m.ChildSaStatus(
        rule="lan",
        mode=Mode.TUNNEL,
        spi_in=0x1000,
        spi_out=0xDEADBEEF,
        algorithms="aes256gcm16",
        local=(),
        remote=(),
        established_at=90.0,
    )
    return m.IkeSaStatus(
        peer="branch",
        state="established",
        initiator=initiator,
        spi_i=spi if initiator else b"otherend",
        spi_r=b"otherend" if initiator else spi,
        local="192.0.2.1:500",
        remote="192.0.2.2:500",
        algorithms="aes256gcm16",
        established_at=40.0,
        children=(child,),
    )


def child_in(state: ChildState) -> Child:
    child = Child(ROLE_TABLE[-1], Loop(), lambda _row: spawn(*[]), lambda _child: None)
    child.state = state
    return child


def facts(**changes: object) -> ProcessFacts:
    whole: dict[str, object] = {
        "uid": uid_of(Role.IKE_WORKER),
        "effective_capabilities": 0,
        "no_new_privs": True,
        "cpu_s": 0.1,
        "rss_bytes": 1,
    }
    return ProcessFacts(**{**whole, **changes})  # type: ignore[arg-type]


def role(**changes: object) -> RoleStatus:
    whole: dict[str, object] = {
        "role": "ike_worker",
        "state": "up",
        "pid": 7,
        "start_time": 1.0,
        "up_s": 100.0,
        "restarts": 0,
        "last_exit": "",
        "refused_messages": 0,
        "process": facts(),
    }
    return RoleStatus(**{**whole, **changes})  # type: ignore[arg-type]


def codes(child: Child, status: RoleStatus) -> list[str]:
    return [finding.code for finding in role_findings(child, status)]


def test_the_kernel_tells_who_a_process_is() -> None:
    told = process_facts(os.getpid())
    assert told is not None
    assert told.uid == os.geteuid()
    assert told.rss_bytes > 1_000_000
    assert process_facts(2**22) is None


def test_a_role_that_is_as_it_should_be_gives_no_finding() -> None:
    assert codes(child_in(ChildState.UP), role()) == []


def test_each_strange_thing_has_its_code() -> None:
    up = child_in(ChildState.UP)
    assert codes(child_in(ChildState.WAITING), role(state="waiting", process=None)) == ["dead-process"]
    assert codes(up, role(restarts=1, up_s=59.0)) == ["role-restarted"]
    assert codes(up, role(restarts=1, up_s=60.0)) == []
    assert codes(up, role(refused_messages=3)) == ["messages-refused"]
    assert codes(up, role(process=facts(uid=0))) == ["role-wrong-user"]
    assert codes(up, role(process=facts(effective_capabilities=1 << 12))) == ["role-too-privileged"]
    assert codes(up, role(process=facts(no_new_privs=False))) == ["role-too-privileged"]


def test_the_policy_that_was_refused_and_the_one_that_runs_are_both_shown() -> None:
    keeper = PolicyKeeper(lambda _message: True, lambda: True)
    data_path = DataPathKeeper(lambda _message: True)
    assert policy_status(keeper, 0.0) is None
    keeper.offer(FileContent(path="/etc/ipsec.spd", content=Secret(b"k"), mode=0o600, uid=0), lambda *_: None)
    keeper.on_parsed(
        m.PolicyParsed(
            generation=1,
            sha256=b"\xab" * 32,
            rules=3,
            data_path=DataPathKind.AUTO,
            interfaces=(),
            ip_forward=IpForward.LEAVE,
            warnings=("w",),
        )
    )
    keeper.on_enforced(m.PolicyEnforced(generation=1))
    assert list(policy_findings(keeper, data_path)) == []
    keeper.refused = ("/etc/ipsec.spd:3:1: nonsense",)
    shown = policy_status(keeper, keeper.in_force.enforced_at + 5 if keeper.in_force else 0)
    assert shown is not None
    assert (shown.generation, shown.rules, shown.age_s, shown.sha256[:4]) == (1, 3, 5.0, "abab")
    assert [finding.code for finding in policy_findings(keeper, data_path)] == ["policy-refused"]


def test_a_tunnel_is_shown_with_ages_and_hexadecimal_spis() -> None:
    shown = tunnel_report(tunnel(), 100.0)
    assert (shown.age_s, shown.spi_i) == (60.0, b"initiatr".hex())
    (child,) = shown.children
    assert (child.age_s, child.spi_in, child.spi_out, child.mode) == (10.0, "00001000", "deadbeef", "tunnel")


def test_the_whole_is_json() -> None:
    status = Status(
        format=FORMAT,
        running=True,
        phase="running",
        instance="/run/ipsecd",
        pid=1,
        start_time=1.5,
        up_s=2.0,
        policy=None,
        data_path=None,
        roles=(role(),),
        tunnels=(tunnel_report(tunnel(), 100.0),),
        stored_ike_sas=1,
        refused_messages=0,
        findings=(),
    )
    read = json.loads(status.to_json())
    assert read["roles"][0]["process"]["no_new_privs"] is True
    assert read["tunnels"][0]["children"][0]["rule"] == "lan"


def test_tunnels_are_replaced_and_removed_by_their_own_spi() -> None:
    tunnels = Tunnels()
    tunnels.change(m.TunnelsChanged(changed=(tunnel(b"ours-one"), tunnel(b"ours-two", initiator=False)), gone=()))
    tunnels.change(m.TunnelsChanged(changed=(tunnel(b"ours-one"),), gone=(b"ours-two",)))
    assert [one.spi_i for one in tunnels.all()] == [b"ours-one"]


def test_tunnels_that_were_not_saved_are_gone_with_their_worker() -> None:
    tunnels, store = Tunnels(), Store()
    tunnels.change(m.TunnelsChanged(changed=(tunnel(b"ours-one"), tunnel(b"ours-two")), gone=()))
    saved = (m.IkeSaSnapshot(spi=b"ours-two", state=Secret(b"x")),)
    store.save(m.SaveIkeSas(sequence=1, saved=saved, forgotten=()))
    tunnels.keep_only(store)
    assert [one.spi_i for one in tunnels.all()] == [b"ours-two"]
