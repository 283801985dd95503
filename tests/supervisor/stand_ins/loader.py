"""A policy loader whose files are words: `refuse`, `kernel`, `interface`, `die`, `credential PATH`; others are good."""

import os

from stand_ins.role import handlers

from ipc import messages as m
from ipc.links import LOADER_AGENT, LOADER_WORKER, SUPERVISOR_LOADER
from ipc.process import RoleProcess
from ipc.roles import Role
from ipc.types import DataPathKind, IpForward, Unmatched

parsed: dict[int, str] = {}


def on_parse(message: m.ParsePolicy, _peer: bytes) -> None:
    text = message.content.reveal().decode()
    if "die" in text:
        os._exit(7)
    if "refuse" in text:
        errors = (f"{message.path}:1:1: refuse: this word is refused", f"{message.path}:2:1: and so is this line")
        supervisor.send(m.PolicyRefused(generation=message.generation, errors=errors))
        return
    parsed[message.generation] = text
    if "credential" in text:
        supervisor.send(m.ReadCredential(request_id=message.generation, path=text.split()[1].strip('"')))
        return
    say_parsed(message.generation, ())


def on_credential(message: m.CredentialContent, _peer: bytes) -> None:
    said = message.error or f"{len(message.content)} bytes, mode {message.mode:o}, uid {message.uid}"
    say_parsed(message.request_id, (f"credential: {said}",))


def say_parsed(generation: int, warnings: tuple[str, ...]) -> None:
    text = parsed[generation]
    supervisor.send(
        m.PolicyParsed(
            generation=generation,
            sha256=bytes(32),
            rules=len(text.split()),
            data_path=DataPathKind.KERNEL if "kernel" in text else DataPathKind.AUTO,
            interfaces=("no-such-interface",) if "interface" in text else ("lo",),
            ip_forward=IpForward.LEAVE,
            warnings=warnings,
        )
    )


def on_enforce(message: m.EnforcePolicy, _peer: bytes) -> None:
    agent.try_send(m.BeginPolicy(generation=message.generation, interfaces=("lo",), unmatched=Unmatched.BYPASS))
    agent.try_send(m.CommitPolicy(generation=message.generation, rules=0))


process = RoleProcess.start(Role.POLICY_LOADER)
agent = process.open_link(
    LOADER_AGENT,
    handlers(
        process,
        LOADER_AGENT,
        {m.PolicyInstalled: lambda message, _peer: supervisor.send(m.PolicyEnforced(generation=message.generation))},
    ),
)
process.open_link(LOADER_WORKER, handlers(process, LOADER_WORKER, {}))
supervisor = process.open_supervisor_link(
    handlers(
        process,
        SUPERVISOR_LOADER,
        {m.ParsePolicy: on_parse, m.EnforcePolicy: on_enforce, m.CredentialContent: on_credential},
    )
)
process.say_hello()
process.run()
