"""The worker's end of its link to the policy loader: negotiation rules, and AUTH, which only the loader can make."""

import itertools
import logging
import time
from collections.abc import Callable

from ike_worker.ikev2 import events
from ike_worker.ikev2.engine import Engine
from ipc import messages as m
from ipc.channel import Handler
from ipc.links import LOADER_WORKER
from ipc.process import RoleProcess

log = logging.getLogger(__name__)

PolicyTaken = Callable[[tuple[m.Peer, ...], tuple[m.NegotiationRule, ...]], None]
"""Called with a whole new policy."""


class PolicyClient:
    """Gathers a policy until its CommitPolicy, and carries AUTH requests and answers by token.

    A loader that has just started sends its policy by itself; requests that the old one did not answer are asked
    again then.
    """

    def __init__(self, process: RoleProcess, engine: Engine, on_policy: PolicyTaken) -> None:
        self._engine = engine
        self._on_policy = on_policy
        self._ids = itertools.count(1)
        self._generation = 0
        self._half_open = m.HalfOpenLimits()
        self._peers: list[m.Peer] = []
        self._anew: list[str] = []
        self._rules: list[m.NegotiationRule] = []
        self._asked: dict[int, events.ComputeAuth | events.VerifyAuth] = {}
        handlers: dict[type, Handler] = {
            m.BeginPolicy: self._on_begin,
            m.AddPeer: self._on_peers,
            m.AddNegotiationRule: self._on_rules,
            m.CommitPolicy: self._on_commit,
            m.AuthComputed: self._on_auth_computed,
            m.AuthVerified: self._on_auth_verified,
            m.AuthRefused: self._on_auth_refused,
        }
        self._channel = process.open_link(LOADER_WORKER, handlers)

    def ask(self, event: events.ComputeAuth | events.VerifyAuth) -> None:
        """Has the loader compute our AUTH or verify the peer's."""
        request_id = next(self._ids)
        self._asked[request_id] = event
        self._send(request_id, event)

    def _send(self, request_id: int, event: events.ComputeAuth | events.VerifyAuth) -> None:
        if isinstance(event, events.ComputeAuth):
            self._channel.try_send(
                m.ComputeAuth(
                    request_id=request_id,
                    peer=event.peer,
                    prf=event.prf,
                    initiator=event.initiator,
                    message=event.message,
                    nonce=event.nonce,
                    sk_p=event.sk_p,
                    id_payload=event.id_payload,
                    hash_algorithms=event.hash_algorithms,
                    requested_encodings=event.requested_encodings,
                )
            )
        else:
            self._channel.try_send(
                m.VerifyAuth(
                    request_id=request_id,
                    peer=event.peer,
                    prf=event.prf,
                    initiator=event.initiator,
                    message=event.message,
                    nonce=event.nonce,
                    sk_p=event.sk_p,
                    id_payload=event.id_payload,
                    method=event.method,
                    data=event.data,
                    certificates=event.certificates,
                )
            )

    def _on_begin(self, begin: m.BeginPolicy, _peer: bytes) -> None:
        self._generation = begin.generation
        self._half_open = begin.half_open
        self._peers.clear()
        self._anew.clear()
        self._rules.clear()

    def _on_peers(self, add: m.AddPeer, _peer: bytes) -> None:
        if add.generation == self._generation:
            self._peers.extend(add.peers)
            self._anew.extend(add.anew)

    def _on_rules(self, add: m.AddNegotiationRule, _peer: bytes) -> None:
        if add.generation == self._generation:
            self._rules.extend(add.rules)

    def _on_commit(self, commit: m.CommitPolicy, _peer: bytes) -> None:
        if commit.generation != self._generation or commit.rules != len(self._rules):
            log.warning("policy %d came in pieces that do not fit; the present one stays", commit.generation)
            return
        self._engine.set_half_open_limits(self._half_open)
        self._on_policy(tuple(self._peers), tuple(self._rules))
        self._engine.authenticate_anew(tuple(self._anew), time.monotonic())
        for request_id, event in self._asked.items():
            self._send(request_id, event)

    def _on_auth_computed(self, answer: m.AuthComputed, _peer: bytes) -> None:
        event = self._asked.pop(answer.request_id, None)
        if event is not None:
            now = time.monotonic()
            self._engine.auth_computed(event.token, answer.method, answer.data, now, answer.certificates)

    def _on_auth_verified(self, answer: m.AuthVerified, _peer: bytes) -> None:
        event = self._asked.pop(answer.request_id, None)
        if event is not None:
            self._engine.auth_verified(event.token, answer.valid, time.monotonic(), answer.reason)

    def _on_auth_refused(self, answer: m.AuthRefused, _peer: bytes) -> None:
        event = self._asked.pop(answer.request_id, None)
        if event is not None:
            self._engine.auth_refused(event.token, answer.reason, time.monotonic())
