"""A data path that moves no packet."""

from stand_ins.role import handlers

from ipc.links import AGENT_DATA_PATH, SUPERVISOR_DATA_PATH
from ipc.process import RoleProcess
from ipc.roles import Role

process = RoleProcess.start(Role.DATA_PATH)
process.open_link(AGENT_DATA_PATH, handlers(process, AGENT_DATA_PATH, {}))
process.open_supervisor_link(handlers(process, SUPERVISOR_DATA_PATH, {}))
process.say_hello()
process.run()
