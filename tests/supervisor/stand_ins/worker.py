"""A worker with one IKE SA that it has saved.

SIGUSR1: says what it may not. SIGUSR2: hangs. SIGRTMIN: saves poison. SIGRTMIN+1: saves what keeps its successor from
ever being ready.
"""

import os
import signal
import time

from stand_ins.role import handlers

from ipc import messages as m
from ipc.links import LOADER_WORKER, SUPERVISOR_WORKER, WORKER_AGENT
from ipc.process import RoleProcess
from ipc.roles import Role
from ipc.types import Secret

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


process = RoleProcess.start(Role.IKE_WORKER)
agent = process.open_link(WORKER_AGENT, handlers(process, WORKER_AGENT, {m.SpiAllocated: on_spi}))
process.open_link(LOADER_WORKER, handlers(process, LOADER_WORKER, {}))
supervisor = process.open_supervisor_link(
    handlers(process, SUPERVISOR_WORKER, {m.RestoreIkeSas: on_restore, m.IkeSasSaved: on_saved})
)
signal.signal(signal.SIGUSR1, lambda _number, _frame: agent._socket.send(b"not a message"))
signal.signal(signal.SIGUSR2, lambda _number, _frame: time.sleep(3600))
signal.signal(signal.SIGRTMIN, save_poison)
signal.signal(signal.SIGRTMIN + 1, save_hesitation)
process.say_hello()
process.run()
