"""A kernel agent that touches no kernel."""

import logging

from stand_ins.role import handlers

from ipc import messages as m
from ipc.links import AGENT_DATA_PATH, LOADER_AGENT, SUPERVISOR_AGENT, WORKER_AGENT
from ipc.process import RoleProcess
from ipc.roles import Role

log = logging.getLogger(__name__)
process = RoleProcess.start(Role.KERNEL_AGENT)
loader = process.open_link(
    LOADER_AGENT,
    handlers(
        process,
        LOADER_AGENT,
        {
            m.CommitPolicy: lambda message, _peer: loader.try_send(m.PolicyInstalled(generation=message.generation)),
        },
    ),
)
worker = process.open_link(
    WORKER_AGENT,
    handlers(
        process,
        WORKER_AGENT,
        {
            m.AllocateSpi: lambda message, _peer: worker.try_send(
                m.SpiAllocated(request_id=message.request_id, spis=(4096,))
            ),
        },
    ),
)
process.open_link(AGENT_DATA_PATH, handlers(process, AGENT_DATA_PATH, {}))
supervisor = process.open_supervisor_link(
    handlers(
        process,
        SUPERVISOR_AGENT,
        {
            m.UseDataPath: lambda message, _peer: supervisor.try_send(m.DataPathReady(kind=message.kind)),
            m.LogUnmatched: lambda message, _peer: log.warning("log unmatched: %s", message.on),
        },
    )
)
process.say_hello()
supervisor.send(m.AgentReady(kernel_esp=False, detail="a stand-in has none"))
process.run()
