"""A worker with one IKE SA that it has saved, and set answers for operators.

SIGUSR1: says what it may not. SIGUSR2: hangs. SIGRTMIN: saves poison. SIGRTMIN+1: saves what keeps its successor from
ever being ready.
"""

import os
import signal
import time
from dataclasses import replace
from ipaddress import ip_address

from stand_ins.role import handlers

from ipc import messages as m
from ipc import wishes as w
from ipc.algorithms import AES128CBC, AES256GCM16, IntegrityId
from ipc.links import LOADER_WORKER, SUPERVISOR_WORKER, WORKER_AGENT
from ipc.process import RoleProcess
from ipc.roles import Role
from ipc.types import Mode, Secret, TrafficSelector

SPI = b"stand-in"
POISON = m.IkeSaSnapshot(spi=b"poisoned", state=Secret(b"whoever restores this dies"))
HESITATION = m.IkeSaSnapshot(spi=b"hesitate", state=Secret(b"whoever restores this is never ready"))
restored = 0
hesitates = False


def on_restore(message: m.RestoreIkeSas, _peer: bytes) -> None:
    global restored, hesitates
    if POISON in message.snapshots:
        os._exit(9)
    hesitates = hesitates or HESITATION in message.snapshots
    restored += len(message.snapshots)
    if message.last:
        agent.send(m.AllocateSpi(request_id=1, count=1))


def on_spi(_message: m.SpiAllocated, _peer: bytes) -> None:
    supervisor.send(
        m.SaveIkeSas(sequence=1, saved=(m.IkeSaSnapshot(spi=SPI, state=Secret(b"keys of this IKE SA")),), forgotten=())
    )


def save_poison(_number: int, _frame: object) -> None:
    supervisor.send(m.SaveIkeSas(sequence=2, saved=(POISON,), forgotten=()))


def save_hesitation(_number: int, _frame: object) -> None:
    supervisor.send(m.SaveIkeSas(sequence=2, saved=(HESITATION,), forgotten=()))


def on_saved(_message: m.IkeSasSaved, _peer: bytes) -> None:
    if hesitates:
        return
    tunnel = m.IkeSaStatus(
        peer=f"restored-{restored}",
        state="established",
        initiator=True,
        spi_i=SPI,
        spi_r=bytes(8),
        local="192.0.2.1:500",
        remote="192.0.2.2:500",
        algorithms="aes256gcm16-prfsha384-x25519",
        established_at=time.monotonic(),
        children=(),
    )
    supervisor.send(m.TunnelsChanged(changed=(tunnel,), gone=()))
    supervisor.send(m.WorkerReady(ike_sas=restored))


def on_wish(wish: w.OperatorWish, _peer: bytes) -> None:
    """`silent` gets no answer, `fails` a failure; the rest what the verb has."""
    number = wish.request_id
    if wish.target == "silent":
        return
    if wish.target == "fails":
        supervisor.send(w.WishEnded(request_id=number, done=False, lines=("it can't be done", "really not")))
    elif wish.verb is w.OperatorVerb.LIST:
        supervisor.send(w.SasListed(request_id=number, ike_sas=(ike_sa(1),), last=False))
        supervisor.send(w.SasListed(request_id=number, ike_sas=(ike_sa(2),), last=True))
    elif wish.verb is w.OperatorVerb.WHY:
        silence = replace(FAILURE, subject="", sentence="the peer does not answer", times=4)
        earlier = (w.PastFailure(failure=silence, age_s=3700.0), w.PastFailure(failure=FAILURE, age_s=7300.0))
        last = replace(FAILURE, times=3)
        supervisor.send(w.FailureTold(request_id=number, failure=last, age_s=61.0, earlier=earlier, since_s=122.0))
    elif wish.verb is w.OperatorVerb.CAPTURE_KEYS:
        supervisor.send(w.CaptureKeys(request_id=number, ike_sas=(IKE_KEYS,), esp_sas=(ESP_KEYS,), last=True))
    else:
        supervisor.send(w.WishEnded(request_id=number, done=True, lines=(f"{wish.verb.name} {wish.target}",)))


def on_watch(message: w.WatchSas, _peer: bytes) -> None:
    if message.on:
        told = w.LiveEvent(at=1.0, kind="ike-sa-closed", text="it is closed", peer="branch", reason="a stand-in")
        supervisor.send(w.SasHappened(events=(told,)))


def ike_sa(number: int) -> w.ListedIkeSa:
    selector = TrafficSelector(
        protocol=6,
        start_address=ip_address("10.1.0.0"),
        end_address=ip_address("10.1.0.255"),
        start_port=0,
        end_port=65535,
    )
    child = m.ChildSaStatus(
        rule=f"rule-{number}",
        mode=Mode.TUNNEL,
        spi_in=0x1000 + number,
        spi_out=0x2000 + number,
        algorithms="aes256gcm16-esn",
        local=(selector,),
        remote=(selector,),
        established_at=0.0,
    )
    status = m.IkeSaStatus(
        peer=f"peer-{number}",
        state="established",
        initiator=True,
        spi_i=bytes((number,)) * 8,
        spi_r=bytes(8),
        local="192.0.2.1:500",
        remote="192.0.2.2:500",
        algorithms="aes256gcm16-prfsha384-x25519",
        established_at=0.0,
        children=(),
    )
    listed = w.ListedChildSa(
        status=child,
        state="installed",
        age_s=60.0,
        rekey_in_s=3600.0,
        expires_in_s=None,
        inbound=w.Traffic(packets=7, bytes=2048, idle_s=1.0) if number == 1 else None,
    )
    return w.ListedIkeSa(status=status, age_s=61.0, rekey_in_s=7200.0, reauth_in_s=None, children=(listed,))


FAILURE = w.Failure(
    peer="branch",
    rule="lan",
    remote="192.0.2.2:500",
    at=1.0,
    exchange="IKE_SA_INIT",
    notify="NO_PROPOSAL_CHOSEN",
    by_peer=False,
    sentence="all in one line",
    subject="IKE proposals",
    ours=("aes256gcm16-prfsha256-x25519",),
    theirs=("aes256gcm16-prfsha256-ecp256", "aes128gcm16-prfsha256-ecp256"),
    difference="key exchange: ours x25519, theirs ecp256",
    remedy="have it otherwise",
)
IKE_KEYS = w.IkeSaKeys(
    peer="branch",
    spi_i=b"initiato",
    spi_r=b"responde",
    cipher=AES256GCM16,
    integrity=IntegrityId.NONE,
    sk_ei=Secret(b"\x11" * 36),
    sk_er=Secret(b"\x22" * 36),
    sk_ai=Secret(b""),
    sk_ar=Secret(b""),
)
ESP_KEYS = w.EspSaKeys(
    spi=0x1001,
    source=ip_address("192.0.2.2"),
    destination=ip_address("192.0.2.1"),
    cipher=AES128CBC,
    integrity=IntegrityId.HMAC_SHA2_256_128,
    encryption_key=Secret(b"\x33" * 16),
    integrity_key=Secret(b"\x44" * 32),
    esn=False,
)

process = RoleProcess.start(Role.IKE_WORKER)
agent = process.open_link(WORKER_AGENT, handlers(process, WORKER_AGENT, {m.SpiAllocated: on_spi}))
process.open_link(LOADER_WORKER, handlers(process, LOADER_WORKER, {}))
supervisor = process.open_supervisor_link(
    handlers(
        process,
        SUPERVISOR_WORKER,
        {
            m.RestoreIkeSas: on_restore,
            m.IkeSasSaved: on_saved,
            w.OperatorWish: on_wish,
            w.WatchSas: on_watch,
        },
    )
)
signal.signal(signal.SIGUSR1, lambda _number, _frame: agent._socket.send(b"not a message"))
signal.signal(signal.SIGUSR2, lambda _number, _frame: time.sleep(3600))
signal.signal(signal.SIGRTMIN, save_poison)
signal.signal(signal.SIGRTMIN + 1, save_hesitation)
process.say_hello()
process.run()
