"""The log of packets that no rule is about: the nftables table that finds them, and the lines that tell of them."""

import logging
import socket

from ipc.loop import Loop
from ipc.messages import KernelRule
from ipc.ownership import NFLOG_GROUP
from kernel_agent import unmatched
from kernel_agent.nflog import LoggedPacket, NflogSocket, describe
from kernel_agent.syslog import AuthLog
from kernel_agent.xfrm.constants import NETLINK_NETFILTER
from kernel_agent.xfrm.netlink import RequestSocket

log = logging.getLogger(__name__)


class UnmatchedLog:
    """Off until it is told rules. What it makes in the kernel goes with its sockets, whatever becomes of us."""

    def __init__(self, loop: Loop, auth_log: AuthLog | None = None) -> None:
        self._loop = loop
        self._auth_log = auth_log or AuthLog()
        self._table: RequestSocket | None = None
        self._packets: NflogSocket | None = None

    def set_rules(self, rules: tuple[KernelRule, ...] | None) -> None:
        """Logs packets that none of `rules` is about from now on; None: none at all. What fails is logged."""
        try:
            if rules is None:
                self._stop()
            else:
                self._start(rules)
        except OSError as error:
            log.error("packets that no rule matches can't be logged: %s", error.strerror)
            self._stop()

    def _start(self, rules: tuple[KernelRule, ...]) -> None:
        if self._packets is None:
            self._packets = NflogSocket(NFLOG_GROUP, unmatched.LOGGED_BYTES)
            self._loop.add_reader(self._packets.fileno(), self._on_packets)
            self._table = RequestSocket(NETLINK_NETFILTER)
        if self._table is not None:
            unmatched.install(self._table, rules, {name: index for index, name in socket.if_nameindex()})
        log.info("packets that no rule matches are logged")

    def _stop(self) -> None:
        if self._packets is None:
            return
        self._loop.remove_reader(self._packets.fileno())
        self._packets.close()
        self._packets = None
        if self._table is not None:
            self._table.close()
            self._table = None
        self._auth_log.close()
        log.info("packets that no rule matches are not logged any more")

    def _on_packets(self) -> None:
        for packet in self._packets.receive() if self._packets is not None else ():
            line = f"no rule matches: {describe(packet, _interface(packet))}"
            log.info("%s", line)
            self._auth_log.say(line)


def _interface(packet: LoggedPacket) -> str:
    try:
        return socket.if_indextoname(packet.ifindex) if packet.ifindex else ""
    except OSError:
        return f"interface {packet.ifindex}"
