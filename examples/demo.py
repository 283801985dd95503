"""Two gateways, a tunnel on demand, a worker killed under traffic: run by `make demo`, as root.

Each line says what was done and what was seen. The exit code is not zero if any of it was not as it must be. All of it
happens in two network namespaces of its own, which are removed at the end, also after Ctrl-C.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ipc.roles import Role
from tests.lab.capture import Capture, Exchange, Frame, Kind
from tests.lab.instance import Instance, NetworkState, RunningRole, Tunnel, leftovers
from tests.lab.namespaces import Gateways, LabError, gateways, namespaces_of
from tests.lab.ping import RunningPing, ping
from tests.lab.waiting import wait_until

LEFT_INNER, RIGHT_INNER = "10.1.0.1", "10.2.0.1"
PINGS = 1000
INTERVAL_S = 0.005
FIRST_ANSWER_WITHIN_S = 5.0
BACK_WITHIN_S = 1.0
LIVENESS_WITHIN_S = 10.0
EXAMPLES = Path(__file__).parent


class NotSo(Exception):
    """The demo saw something that must not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the steps work with."""

    wire: Gateways
    left: Instance
    right: Instance
    capture: Capture
    at_first: tuple[NetworkState, NetworkState]
    """The two namespaces before anything was started in them."""
    back_within_s: float
    """How soon a killed worker must have a successor."""


def say(what: str, seen: str) -> None:
    """One line: what was done, and what was seen."""
    print(f"{what:<16} {seen}", flush=True)


def expect(so: bool, otherwise: str) -> None:
    """NotSo, with what was seen instead, unless it is `so`."""
    if not so:
        raise NotSo(otherwise)


def start(demo: Demo) -> None:
    """Both instances, by ipsecctl."""
    for instance in (demo.left, demo.right):
        name = instance.namespace.label
        began = time.monotonic()
        instance.start((EXAMPLES / name / "ipsec.spd").read_text())
        roles = ", ".join(f"{one.role} {one.pid}" for one in instance.roles())
        say("ipsecctl start", f"{name}, in {time.monotonic() - began:.1f} s: {roles}")


def first_ping(demo: Demo) -> None:
    """There is no tunnel yet: the packet asks for one."""
    expect(not demo.capture.of_kind(Kind.IKE), "IKE was spoken before there was any traffic")
    began = time.monotonic()
    tries = 1
    while not (result := ping(demo.wire.left, RIGHT_INNER, source=LEFT_INNER, wait_s=1.0)).received:
        tries += 1
        expect(time.monotonic() - began < FIRST_ANSWER_WITHIN_S, f"no answer in {FIRST_ANSWER_WITHIN_S:g} s")
    exchanges = ", ".join(str(frame.ike) for frame in demo.capture.of_kind(Kind.IKE)[:4])
    answered = "it was answered itself" if tries == 1 else f"number {tries} was answered"
    say("first ping", f"negotiated the tunnel, {answered} after {result.longest_s * 1000:.0f} ms: {exchanges}")


def status(demo: Demo) -> None:
    """What the operator sees."""
    for instance in (demo.left, demo.right):
        tunnel = instance.wait_for_tunnel()
        say("ipsecctl status", f"{instance.namespace}: {tunnel.state}, {', '.join(tunnel.children)}")
        for line in instance.ctl("status", check=False).splitlines():
            print(f"    {line}")


def many_pings(demo: Demo) -> None:
    """Not one may be lost."""
    result = ping(demo.wire.left, RIGHT_INNER, source=LEFT_INNER, count=PINGS, interval_s=INTERVAL_S)
    expect(result.sent == PINGS and not result.lost, str(result))
    say(f"{PINGS:,} pings", f"{result}: none lost")


def kill_worker(demo: Demo) -> None:
    """The control plane may die; the traffic does not, and the tunnel stays the same."""
    before = tunnels(demo)
    pings = RunningPing(demo.wire.left, RIGHT_INNER, source=LEFT_INNER, count=PINGS, interval_s=INTERVAL_S)
    time.sleep(PINGS * INTERVAL_S / 4)
    victim = demo.left.kill(Role.IKE_WORKER)
    back_s = demo.left.wait_for_successor(victim)
    expect(pings.running(), "the pings were over before the worker was back")
    result = pings.finish()
    expect(result.sent == PINGS and not result.lost, f"while the worker was dead: {result}")
    expect(back_s < demo.back_within_s, f"the worker was back only after {back_s:.2f} s")
    wait_until("the worker is up", lambda: worker_is_up(demo.left, victim))
    expect(tunnels(demo) == before, f"the tunnel is another one: {before} before, {tunnels(demo)} after")
    say("worker killed", f"left's ike_worker {victim.pid}, by SIGKILL, under pings; another after {back_s:.2f} s")
    say("", f"{result}: none lost, the SPIs stayed")
    say("", liveness(demo))


def liveness(demo: Demo) -> str:
    """The worker that took over speaks with the peer, with the message ID that its predecessor would have used."""
    known = len(demo.capture.of_kind(Kind.IKE))

    def new() -> list[Frame]:
        return demo.capture.of_kind(Kind.IKE)[known:]

    def is_answered() -> bool:
        return any(frame.ike and frame.ike.response and frame.sender == "right" for frame in new())

    wait_until("the new worker and the peer exchange messages", is_answered, timeout_s=LIVENESS_WITHIN_S)
    response = next(frame.ike for frame in new() if frame.ike and frame.ike.response and frame.sender == "right")
    earlier = [
        frame.ike.message_id
        for frame in demo.capture.of_kind(Kind.IKE)[:known]
        if frame.sender == "left" and frame.ike and not frame.ike.response
    ]
    expect(response.exchange == Exchange.INFORMATIONAL, f"the first message after the kill is {response}")
    expect(
        response.message_id in (max(earlier), max(earlier) + 1),
        f"the message ID after {max(earlier)} is {response.message_id}",
    )
    return f"it asked whether right lives: {response} came; the last message ID before was {max(earlier)}"


def stop(demo: Demo) -> None:
    """Both, and only what may be was on the wire."""
    for instance in (demo.left, demo.right):
        began = time.monotonic()
        instance.stop()
        say("ipsecctl stop", f"{instance.namespace}, in {time.monotonic() - began:.1f} s")
    demo.capture.stop()
    clear = demo.capture.of_kind(Kind.CLEAR)
    expect(not clear, f"in clear: {'; '.join(frame.description for frame in clear[:5])}")
    expect(not demo.capture.missed, f"the capture missed {demo.capture.missed} frames")
    expect(len(demo.capture.of_kind(Kind.ESP, Kind.ESP_IN_UDP)) >= 4 * PINGS, "the pings were not in ESP")
    say("the wire", f"{demo.capture.summary()}; nothing else")


def nothing_left(demo: Demo) -> None:
    """What was started is gone, and so is all that it made."""
    for instance, before in zip((demo.left, demo.right), demo.at_first, strict=True):
        left = leftovers(instance, before)
        expect(not left, f"{instance.namespace} has left: {'; '.join(left)}")
    say("left behind", "no process, socket, lock, policy, SA, rule, route, device or table")


def tunnels(demo: Demo) -> list[Tunnel]:
    """The IKE SAs of both sides."""
    return [*demo.left.tunnels(), *demo.right.tunnels()]


def worker_is_up(instance: Instance, victim: RunningRole) -> bool:
    """Whether the supervisor has heard from the victim's successor."""
    roles = {one["role"]: one for one in instance.status()["roles"]}
    worker = roles[Role.IKE_WORKER.value]
    return bool(worker["state"] == "up" and worker["pid"] != victim.pid)


STEPS = (start, first_ping, status, many_pings, kill_worker, stop, nothing_left)


def run(back_within_s: float) -> None:
    """All steps; NotSo or LabError at the first that is not as it must be."""
    with ExitStack() as stack:
        wire = stack.enter_context(gateways())
        say("two namespaces", "left 10.1.0.0/24 = 10.9.0.1 --- wire --- 10.9.0.2 = 10.2.0.0/24 right")
        at_first = (NetworkState.of(wire.left), NetworkState.of(wire.right))
        capture = stack.enter_context(Capture(wire))
        say("capture", "takes every frame that either end sends")
        left, right = stack.enter_context(Instance(wire.left)), stack.enter_context(Instance(wire.right))
        demo = Demo(wire=wire, left=left, right=right, capture=capture, at_first=at_first, back_within_s=back_within_s)
        try:
            for step in STEPS:
                step(demo)
        except (NotSo, LabError):
            for instance in (left, right):
                print(f"--- log of {instance.namespace} ---\n{instance.log()[-4000:]}", file=sys.stderr)
            raise
    expect(not namespaces_of(os.getpid()), f"namespaces are left: {namespaces_of(os.getpid())}")
    say("namespaces", "removed")


def main() -> int:
    """The exit code: 0 if all was as it must be."""
    if os.geteuid() != 0:
        print("the demo needs root: it makes network namespaces", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="demo", description="Two gateways and a tunnel, each step shown.")
    parser.add_argument(
        "--back-within",
        type=float,
        default=BACK_WITHIN_S,
        metavar="SECONDS",
        help="how soon a killed worker must have a successor (default %(default)g; a machine under load needs more)",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    try:
        run(options.back_within)
    except (NotSo, LabError) as error:
        say("NOT SO", str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped", "by Ctrl-C; everything is removed")
        return 130
    say("done", f"all as it must be, in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
