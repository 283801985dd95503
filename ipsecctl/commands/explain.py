"""`ipsecctl explain`: which rule decides about a packet, what is done with it, by which SA, and what it shadows."""

import argparse
import ipaddress
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ipc import default_policies, status_socket
from ipc.types import Action, DataPathKind, Direction, IpAddress
from ipsecctl import exit_codes, lock_file, policy_check
from ipsecctl.arguments import DEFAULT_SPD
from ipsecctl.errors import CommandError
from ipsecctl.output import duration
from ipsecctl.policy_check import Checked
from ipsecctl.report import Report, parse

if TYPE_CHECKING:
    from ipc.messages import KernelRule
    from policy_loader.explain import Decision, Packet, Step

ANSWER_WITHIN_S = 1.0
DIRECTIONS = {"in": Direction.IN, "out": Direction.OUT, "fwd": Direction.FORWARD}
_WORDS = {direction: word for word, direction in DIRECTIONS.items()}
_OTHER_REASONS = {
    "unmatched": "no rule matches",
    "as it leaves": "none as it comes in: what is done with it as it leaves decides",
    "left a tunnel": "none as it leaves; it may leave since it came by a tunnel",
    "loopback": "none: it does not leave the host, and no policy is asked",
    "neighbour discovery": "none: neighbour discovery passes before all rules, or no host on the link could be reached",
    "IKE and ESP": "none: the sockets of IKE and ESP have a policy of their own",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """All that there is to say."""

    path: str
    packet: "Packet"
    decision: "Decision"
    checked: Checked
    report: Report
    """The status of the instance; None if none answers."""
    note: str
    """What the reader should know besides; empty if nothing."""


def run(options: argparse.Namespace) -> int:
    """Says it; 0 unless the question or the policy file is not good."""
    answer = explain(options)
    if options.json:
        print(json.dumps(_as_json(answer), indent=2))
    else:
        print("\n".join(render(answer)))
    return exit_codes.OK


def explain(options: argparse.Namespace) -> _Answer:
    """The answer to a question as the command line has it; CommandError if it makes no sense."""
    from policy_loader.explain import decide

    packet = _packet(options)
    report = _status(options.instance)
    running = report.policy if report is not None else None
    path = os.path.abspath(options.file) if options.file else running.path if running else DEFAULT_SPD
    checked = policy_check.check(path)
    userspace = report.data_path.kind == "userspace" if report is not None and report.data_path else False
    secure = _secure(report)
    notes = ["secure mode is on: what no rule matches is dropped"] if secure else []
    if running is not None and checked.policy.sha256.hex() != running.sha256:
        notes.append(f"{path} is not the policy in force: this is what it would do")
    return _Answer(
        path=path,
        packet=packet,
        decision=decide(
            checked.policy,
            packet,
            secure=secure,
            userspace=userspace or checked.policy.data_path is DataPathKind.USERSPACE,
        ),
        checked=checked,
        report=report,
        note="; ".join(notes),
    )


def _status(instance: str) -> Report:
    """What the instance says of itself; None if it does not run, or does not answer."""
    if not lock_file.look(instance).held:
        return None
    try:
        return parse(status_socket.ask(instance, ANSWER_WITHIN_S))
    except status_socket.NoStatus:
        return None


def _secure(report: Report) -> bool:
    if report is not None:
        return bool(report.mode == "secure")
    try:
        return default_policies.all_block(ANSWER_WITHIN_S)
    except TimeoutError as error:
        raise CommandError("the kernel does not say whether secure mode is on") from error


# ------------------------------------------------------------- the question


def _packet(options: argparse.Namespace) -> "Packet":
    from policy_loader.explain import Packet
    from policy_loader.values import PROTOCOLS_WITH_PORTS

    source, destination = _address("--src", options.src), _address("--dst", options.dst)
    if source.version != destination.version:
        raise CommandError(f"--src {source} and --dst {destination} are of two address families")
    protocol = _protocol(options.proto)
    if protocol not in PROTOCOLS_WITH_PORTS and (options.sport or options.dport):
        raise CommandError("--sport and --dport need --proto tcp, udp, sctp, dccp or udplite")
    if options.icmp_type and protocol not in (1, 58):
        raise CommandError("--icmp-type needs --proto icmp or icmpv6")
    kind, code = _icmp(options.icmp_type, protocol)
    return Packet(
        direction=DIRECTIONS[options.dir],
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=_port("--sport", options.sport),
        destination_port=_port("--dport", options.dport),
        icmp_type=kind,
        icmp_code=code,
        interface=options.interface or "",
        leaves_by=options.out_interface or "",
    )


def _address(option: str, text: str) -> IpAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise CommandError(f'{option}: "{text}" is no IPv4 or IPv6 address') from None


def _protocol(text: str | None) -> int | None:
    if text is None:
        return None
    from policy_loader.values import parse_protocol

    try:
        return parse_protocol(int(text) if text.isdecimal() else text) or None
    except ValueError as error:
        raise CommandError(f"--proto: {error}") from error


def _port(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise CommandError(f'{option}: "{text}" is no port from 0 to 65535')
    return int(text)


def _icmp(text: str | None, protocol: int | None) -> tuple[int | None, int]:
    """Type and code of what the policy language has as a type: that of a name is 0."""
    if text is None:
        return None, 0
    from policy_loader.values import ICMP, parse_icmp_type

    try:
        parsed = parse_icmp_type(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise CommandError(f"--icmp-type: {error}") from error
    ports = parsed.v4 if protocol == ICMP else parsed.v6
    if ports is None:
        raise CommandError(f'--icmp-type: {"ICMP" if protocol == ICMP else "ICMPv6"} has no type "{text}"')
    return ports.first >> 8, ports.first & 0xFF


# ------------------------------------------------------------- the answer


def render(answer: _Answer) -> list[str]:
    """The answer, for people."""
    lines = [f"packet     {_describe(answer.packet)}"]
    for step in answer.decision.steps:
        if answer.packet.direction is Direction.FORWARD:
            lines += ["", "as it comes in" if step.direction is Direction.FORWARD else "as it leaves"]
        lines += [f"rule       {_rule(answer, step)}", f"action     {_action(answer, step)}"]
        if step.action is Action.PROTECT:
            lines += [f"{'sa' if not number else '':<10} {line}" for number, line in enumerate(_sa_lines(answer, step))]
        for title, rules in (("shadows", step.shadowed), ("unless", step.possible)):
            for number, rule in enumerate(rules):
                lines.append(f"{title if not number else '':<10} {_named(answer, rule)}, {rule.action.name.lower()}")
        if step.possible:
            lines.append("           (decides first if what you did not say of the packet fits it)")
    return lines + (["", f"note: {answer.note}"] if answer.note else [])


def _describe(packet: "Packet") -> str:
    from policy_loader.values import PROTOCOLS

    names = {number: name for name, number in PROTOCOLS.items() if number}
    text = f"{_WORDS[packet.direction]}, {packet.source} to {packet.destination}"
    if packet.protocol is not None:
        text += f", {names.get(packet.protocol, f'protocol {packet.protocol}')}"
    ports = (packet.source_port, packet.destination_port)
    if ports != (None, None):
        text += " port {} to {}".format(*("any" if port is None else port for port in ports))
    if packet.icmp_type is not None:
        text += f" type {packet.icmp_type} code {packet.icmp_code}"
    text += f", interface {packet.interface}" if packet.interface else ""
    return text + (f", leaves by {packet.leaves_by}" if packet.leaves_by else "")


def _named(answer: _Answer, rule: "KernelRule") -> str:
    return f"{rule.name} ({answer.path}:{answer.checked.file.line_of(rule.position)})"


def _rule(answer: _Answer, step: "Step") -> str:
    if step.rule is None:
        return _OTHER_REASONS[step.reason.value]
    return _named(answer, step.rule)


def _action(answer: _Answer, step: "Step") -> str:
    if step.reason.value == "led aside":
        return (
            "discard: the user-space data path leads it to the rule's tunnel, which is for other ICMP types, "
            "and drops it there"
        )
    if step.action is Action.DISCARD:
        return "discard: it is dropped"
    if step.action is Action.BYPASS:
        return "bypass: it passes in clear"
    if step.rule is None:
        raise ValueError("a packet is protected by a rule or not at all")
    how = f"{step.rule.mode.name.lower()} mode, peer {_peer_name(answer, step.rule)}"
    if step.rule.peer_address is not None:
        how += f" ({step.rule.peer_address})"
    if step.direction is Direction.OUT:
        return f"protect: it is encrypted, {how}"
    return f"protect: it passes if it came by the SA, {how}; in clear it is dropped"


def _peer_name(answer: _Answer, rule: "KernelRule") -> str:
    """The peer of a protect rule; empty for other rules."""
    return next((one.peer for one in answer.checked.policy.negotiation_rules if one.rule_id == rule.rule_id), "")


def _sa_lines(answer: _Answer, step: "Step") -> list[str]:
    if answer.report is None:
        return ["unknown: no instance answers that could be asked"]
    lines = [
        f"{tunnel.peer}: {sa.spi_in} in, {sa.spi_out} out, {sa.algorithms}, {duration(sa.age_s)} old"
        for tunnel, sa in _sas(answer, step)
    ]
    if lines:
        return lines
    reasons = [down.reason for down in answer.report.down if step.rule is not None and down.rule == step.rule.name]
    return [f"none: {reasons[0]}" if reasons and reasons[0] else "none"]


def _sas(answer: _Answer, step: "Step") -> Iterator[tuple[Any, Any]]:
    """The live SAs of the rule that decides, each with its tunnel."""
    for tunnel in answer.report.tunnels if answer.report is not None else ():
        for child in tunnel.children:
            if step.action is Action.PROTECT and step.rule is not None and child.rule == step.rule.name:
                yield tunnel, child


# ------------------------------------------------------------- the answer, for programs


def _as_json(answer: _Answer) -> object:
    packet = answer.packet
    return {
        "file": answer.path,
        "note": answer.note,
        "packet": {
            "direction": _WORDS[packet.direction],
            "source": str(packet.source),
            "destination": str(packet.destination),
            "protocol": packet.protocol,
            "source_port": packet.source_port,
            "destination_port": packet.destination_port,
            "icmp_type": packet.icmp_type,
            "interface": packet.interface,
            "leaves_by": packet.leaves_by,
        },
        "action": answer.decision.action.name.lower(),
        "certain": answer.decision.certain,
        "steps": [_step_as_json(answer, step) for step in answer.decision.steps],
    }


def _step_as_json(answer: _Answer, step: "Step") -> object:
    return {
        "direction": _WORDS[step.direction],
        "action": step.action.name.lower(),
        "reason": step.reason.value,
        "rule": None if step.rule is None else _rule_as_json(answer, step.rule),
        "sas": [{"peer": tunnel.peer, **vars(sa)} for tunnel, sa in _sas(answer, step)],
        "shadows": [_rule_as_json(answer, rule) for rule in step.shadowed],
        "unless": [_rule_as_json(answer, rule) for rule in step.possible],
    }


def _rule_as_json(answer: _Answer, rule: "KernelRule") -> object:
    return {
        "name": rule.name,
        "line": answer.checked.file.line_of(rule.position),
        "action": rule.action.name.lower(),
        "peer": _peer_name(answer, rule),
        "peer_address": str(rule.peer_address or ""),
    }
