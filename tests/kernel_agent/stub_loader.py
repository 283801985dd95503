"""A policy loader that gives every agent which asks for it one policy, and prints what the agent answers.

Run by test_process.py as a process of the loader's uid: the agent lets in nobody else.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from ipc import messages as m
from ipc.channel import Channel
from ipc.links import LOADER_AGENT
from ipc.process import RoleProcess
from ipc.roles import Role
from ipc.types import Unmatched
from tests.kernel_agent.values import rule

RULE = rule(1)


def main() -> None:
    process = RoleProcess.start(Role.POLICY_LOADER)
    links: list[Channel] = []

    def on_need_policy(_message: m.NeedPolicy, _peer: bytes) -> None:
        (link,) = links
        link.send(m.BeginPolicy(generation=1, interfaces=("wire0",), unmatched=Unmatched.BYPASS))
        link.send(m.AddPolicy(generation=1, rules=(RULE,)))
        link.send(m.CommitPolicy(generation=1, rules=1))

    handlers = {
        m.NeedPolicy: on_need_policy,
        m.PolicyInstalled: lambda message, _peer: print(message, flush=True),
        m.PolicyNotInstalled: lambda message, _peer: print(message, flush=True),
    }
    links.append(process.open_link(LOADER_AGENT, handlers))
    process.run()


main()
