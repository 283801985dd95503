"""The loader at work: policies from the supervisor to agent and worker, and AUTH for the worker.

A policy is *parsed*, *being enforced*, or *in force*; at most one of each. While one is in force, another counts as
parsed only when the agent has found that the kernel would take it. A new one is given to the agent first: only
when the kernel has it does it come into force, and only then does the worker negotiate by it. Until then, and if the
agent says no, the one before is in force, with its own secrets. Whoever restarts asks, or is seen to connect, and is
given the policy in force whole. Nothing here waits without bound.
"""

import dataclasses
import datetime
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ipc import codec
from ipc import messages as m
from ipc.channel import Channel, Handler
from ipc.errors import PeerGone
from ipc.links import LOADER_AGENT, LOADER_WORKER
from ipc.loop import Timer
from ipc.patience import for_policy, patient
from ipc.process import RoleProcess
from ipc.roles import Role, name_of, process_name
from ipc.value import value
from policy_loader import policy_file
from policy_loader.credentials import signer
from policy_loader.credentials.files import FetchedFile
from policy_loader.credentials.store import PeerCredentials
from policy_loader.diff import PolicyDiff, diff
from policy_loader.errors import MOST_PROBLEMS, PolicyError, printable
from policy_loader.policy_file import FoundHost, LoadedPolicy, PolicyFile
from policy_loader.renewal import Renewal
from policy_loader.rule_ids import RuleIds
from policy_loader.sources.file import SourceFile

log = logging.getLogger(__name__)

ANSWER_WAIT_S = patient(5.0)
"""How long the supervisor has for the files and hosts that a policy names, and the agent for a policy of few rules."""

LONGEST_REASON = 2000
"""Why a peer is not authenticated, in characters: names in its certificates may be long."""

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class _Parsing:
    """A file that is good so far, and the files and addresses it names that are still to come."""

    generation: int
    file: PolicyFile
    wanted: dict[int, str]
    """Paths and host names by request id."""
    timer: Timer
    files: dict[str, FetchedFile] = field(default_factory=dict)
    hosts: dict[str, FoundHost] = field(default_factory=dict)


@value
class _Generation:
    """A policy that was parsed, under the number the supervisor gave it."""

    number: int
    loaded: LoadedPolicy
    peers: Mapping[str, m.Peer]


@value
class _Given:
    """A policy that the agent was given, to enforce or to check, and has not answered for."""

    generation: _Generation
    timer: Timer


class Loader:
    """The policy loader's links and what it knows."""

    def __init__(self, process: RoleProcess) -> None:
        self._loop = process.loop
        self._rule_ids = RuleIds()
        self._request_ids = itertools.count(1)
        self._parsing: _Parsing | None = None
        self._parsed: _Generation | None = None
        self._checking: _Given | None = None
        self._enforcing: _Given | None = None
        self._in_force: _Generation | None = None
        self._renewal = Renewal(self._loop.call_later, self._ask_for_file, self._request_ids)
        self._supervisor = process.open_supervisor_link(
            {
                m.ParsePolicy: self._on_parse_policy,
                m.CredentialContent: self._on_credential_content,
                m.NameResolved: self._on_name_resolved,
                m.EnforcePolicy: self._on_enforce_policy,
            }
        )
        agent: dict[type, Handler] = {
            m.NeedPolicy: self._on_agent_needs_policy,
            m.PolicyInstalled: self._on_policy_installed,
            m.PolicyNotInstalled: self._on_policy_not_installed,
        }
        self._agent = process.open_link(LOADER_AGENT, agent)
        self._workers: dict[bytes, None] = {process_name(Role.IKE_WORKER).encode(): None}
        """The routing ids of the first, and of those that have connected."""
        worker: dict[type, Handler] = {
            m.NeedPolicy: self._on_worker_needs_policy,
            m.ComputeAuth: self._on_compute_auth,
            m.VerifyAuth: self._on_verify_auth,
        }
        self._worker = process.open_link(LOADER_WORKER, worker, on_connected=self._on_worker_connected)

    # --------------------------------------------------------- parsing

    def _on_parse_policy(self, request: m.ParsePolicy, _peer: bytes) -> None:
        self._refuse((f"policy {request.generation} came before this one was parsed",))
        try:
            file = self._read(request)
        except PolicyError as error:
            self._say_refused(request.generation, error.complaints)
            return
        paths = {next(self._request_ids): path for path in file.secret_files()}
        names = {next(self._request_ids): name for name in file.host_names()}
        timer = self._loop.call_later(ANSWER_WAIT_S, self._on_answers_late)
        self._parsing = _Parsing(generation=request.generation, file=file, wanted=paths | names, timer=timer)
        for request_id, path in paths.items():
            self._ask_for_file(request_id, path)
        for request_id, name in names.items():
            question = m.ResolveName(request_id=request_id, generation=request.generation, name=name)
            self._supervisor.try_send(question)
        self._finish_parsing_if_complete(self._parsing)

    def _read(self, request: m.ParsePolicy) -> PolicyFile:
        """The file, read again only where it differs from what is in force; PolicyError."""
        source = SourceFile(path=request.path, content=request.content, mode=request.mode, uid=request.uid)
        known = self._in_force.loaded.file if self._in_force is not None else None
        return policy_file.read_source(source, _templates_of(request), known)

    def _ask_for_file(self, request_id: int, path: str) -> None:
        self._supervisor.try_send(m.ReadCredential(request_id=request_id, path=path))

    def _on_credential_content(self, answer: m.CredentialContent, _peer: bytes) -> None:
        fetched = FetchedFile(content=answer.content, mode=answer.mode, uid=answer.uid, error=answer.error)
        if self._renewal.take(answer.request_id, fetched):
            return
        parsing = self._parsing
        path = parsing.wanted.pop(answer.request_id, None) if parsing else None
        if parsing is None or path is None:
            log.debug("a file came that nobody waits for any more")
            return
        parsing.files[path] = fetched
        self._finish_parsing_if_complete(parsing)

    def _on_name_resolved(self, answer: m.NameResolved, _peer: bytes) -> None:
        parsing = self._parsing
        name = parsing.wanted.pop(answer.request_id, None) if parsing else None
        if parsing is None or name is None:
            log.debug("addresses came that nobody waits for any more")
            return
        parsing.hosts[name] = FoundHost(addresses=answer.addresses, error=answer.error)
        self._finish_parsing_if_complete(parsing)

    def _on_answers_late(self) -> None:
        if self._parsing is not None:
            names = ", ".join(printable(name) for name in self._parsing.wanted.values())
            self._refuse((f"not had within {ANSWER_WAIT_S:g} s: {names}"[:8000],))

    def _finish_parsing_if_complete(self, parsing: _Parsing) -> None:
        if parsing.wanted:
            return
        former = self._in_force.loaded if self._in_force is not None else None
        try:
            loaded = parsing.file.compile(parsing.files, self._rule_ids, parsing.hosts, former=former)
        except PolicyError as error:
            self._refuse(error.complaints)
            return
        parsing.timer.cancel()
        self._parsing = None
        peers = {peer.name: peer for peer in loaded.policy.peers}
        generation = _Generation(number=parsing.generation, loaded=loaded, peers=peers)
        if self._in_force is None or _same_for_kernel(self._in_force, generation):
            # The first one is not checked: the agent may have no data path yet, and a refusal can hurt nothing.
            self._say_parsed(generation)
        else:
            self._start_checking(generation)

    def _start_checking(self, generation: _Generation) -> None:
        """Has the agent look whether the kernel would take it."""
        self._checking = _Given(generation=generation, timer=self._call_if_late(generation, self._on_check_late))
        self._send_check(generation)
        _encode_for_worker(generation)

    def _send_check(self, generation: _Generation) -> None:
        try:
            _send_kernel_rules(self._agent, generation, check_only=True)
        except PeerGone as error:
            self._refuse((f"the kernel agent can't be asked: {error}",))

    def _on_check_late(self) -> None:
        self._refuse(("the kernel agent did not say in time whether it could enforce the policy",))

    def _end_checking(self, generation: int) -> _Generation | None:
        """The policy of that number, if the agent was asked about it."""
        checking = self._checking
        if checking is None or checking.generation.number != generation:
            return None
        checking.timer.cancel()
        self._checking = None
        return checking.generation

    def _say_parsed(self, generation: _Generation) -> None:
        self._parsed = generation
        loaded, policy = generation.loaded, generation.loaded.policy
        self._supervisor.try_send(
            m.PolicyParsed(
                generation=generation.number,
                sha256=policy.sha256,
                rules=policy.rules,
                data_path=policy.data_path,
                interfaces=policy.interfaces,
                ip_forward=policy.ip_forward,
                warnings=_bounded(loaded.warnings),
                changes=_changes(self._in_force, loaded).told(),
                unmatched=policy.unmatched,
                manual=policy.manual_tunnels[: m.MAX_NAMED],
                ike_workers=policy.ike_workers,
            )
        )

    def _refuse(self, complaints: tuple[str, ...]) -> None:
        """Ends the present parsing or checking with PolicyRefused."""
        parsing, self._parsing = self._parsing, None
        if parsing is not None:
            parsing.timer.cancel()
            self._say_refused(parsing.generation, complaints)
        if self._checking is not None:
            number = self._checking.generation.number
            self._end_checking(number)
            self._say_refused(number, complaints)

    def _say_refused(self, generation: int, complaints: tuple[str, ...]) -> None:
        log.info("policy %d refused: %d errors", generation, len(complaints))
        self._supervisor.try_send(m.PolicyRefused(generation=generation, errors=_bounded(complaints)))

    # --------------------------------------------------------- enforcing

    def _on_enforce_policy(self, request: m.EnforcePolicy, _peer: bytes) -> None:
        generation = self._parsed
        if self._enforcing is not None:
            present = self._enforcing.generation.number
            self._say_not_enforced(request.generation, f"policy {present} is being enforced")
        elif generation is not None and generation.number == request.generation:
            self._parsed = None
            self._start_enforcing(generation)
        elif self._in_force is not None and self._in_force.number == request.generation:
            self._supervisor.try_send(m.PolicyEnforced(generation=request.generation))
        else:
            self._say_not_enforced(request.generation, "this policy was not parsed, or another one after it")

    def _start_enforcing(self, generation: _Generation) -> None:
        self._enforcing = _Given(generation=generation, timer=self._call_if_late(generation, self._on_agent_late))
        try:
            _send_kernel_rules(self._agent, generation)
        except PeerGone as error:
            self._give_up(f"the kernel agent can't be told: {error}")

    def _call_if_late(self, generation: _Generation, on_late: Callable[[], None]) -> Timer:
        more_s = for_policy(0.0, rules=len(generation.loaded.policy.kernel_rules))
        return self._loop.call_later(ANSWER_WAIT_S + more_s, on_late)

    def _on_policy_installed(self, answer: m.PolicyInstalled, _peer: bytes) -> None:
        checked = self._end_checking(answer.generation)
        if checked is not None:
            self._say_parsed(checked)
            return
        enforcing = self._enforcing
        if enforcing is None or enforcing.generation.number != answer.generation:
            log.debug("the agent has policy %d again", answer.generation)
            return
        enforcing.timer.cancel()
        old, new = self._in_force, enforcing.generation
        self._enforcing = None
        self._in_force = new
        self._renewal.watch(new.loaded.credentials.status_files)
        changes = _changes(old, new.loaded)
        log.info("policy %d is in force: %s", new.number, changes)
        for worker in self._workers:
            self._inform_worker(worker, changes.renewed)
        self._supervisor.try_send(m.PolicyEnforced(generation=new.number))

    def _on_policy_not_installed(self, answer: m.PolicyNotInstalled, _peer: bytes) -> None:
        if self._end_checking(answer.generation) is not None:
            self._say_refused(answer.generation, (answer.reason,))
            return
        if self._enforcing is not None and self._enforcing.generation.number == answer.generation:
            self._enforcing.timer.cancel()
            self._enforcing = None
        elif self._in_force is not None and self._in_force.number == answer.generation:
            log.error("the agent does not take the policy in force again: %s", answer.reason)
        else:
            return
        self._say_not_enforced(answer.generation, answer.reason)

    def _on_agent_late(self) -> None:
        self._give_up("the kernel agent did not answer in time")

    def _give_up(self, reason: str) -> None:
        """Back to the policy in force: the agent may yet install what it has been sent, so it gets the old one too."""
        enforcing, self._enforcing = self._enforcing, None
        if enforcing is None:
            return
        enforcing.timer.cancel()
        self._inform_agent()
        self._say_not_enforced(enforcing.generation.number, reason)

    def _say_not_enforced(self, generation: int, reason: str) -> None:
        log.error("policy %d is not enforced: %s", generation, reason)
        self._supervisor.try_send(m.PolicyNotEnforced(generation=generation, reason=reason))

    # --------------------------------------------------------- who is new

    def _on_agent_needs_policy(self, _message: m.NeedPolicy, _peer: bytes) -> None:
        # In this order, so that the one in force stays if the agent does not take the other.
        self._inform_agent()
        if self._enforcing is not None:
            try:
                _send_kernel_rules(self._agent, self._enforcing.generation)
            except PeerGone as error:
                self._give_up(f"the kernel agent can't be told: {error}")
        if self._checking is not None:
            self._send_check(self._checking.generation)

    def _on_worker_connected(self, peer: bytes) -> None:
        if not name_of(peer):
            log.warning("%r is no worker's name: it gets no policy", peer[:64])
            return
        self._workers[peer] = None
        self._inform_worker(peer)

    def _on_worker_needs_policy(self, _message: m.NeedPolicy, peer: bytes) -> None:
        self._inform_worker(peer)

    def _inform_agent(self) -> None:
        if self._in_force is None:
            return
        try:
            _send_kernel_rules(self._agent, self._in_force)
        except PeerGone as error:
            log.warning("the agent does not get the policy in force before it asks again: %s", error)

    def _inform_worker(self, worker: bytes, renewed: tuple[str, ...] = ()) -> None:
        if self._in_force is None:
            return
        try:
            _send_negotiation_rules(self._worker, self._in_force, worker, frozenset(renewed))
        except PeerGone as error:
            log.debug("the worker gets the policy when it connects: %s", error)

    # --------------------------------------------------------- AUTH

    def _on_compute_auth(self, request: m.ComputeAuth, peer: bytes) -> None:
        try:
            auth = signer.compute_auth(request, *self._credentials_of(request.peer))
        except signer.RequestRefused as error:
            self._refuse_auth(request, error, peer)
            return
        answer = m.AuthComputed(
            request_id=request.request_id, method=auth.method, data=auth.data, certificates=auth.certificates
        )
        self._worker.try_send(answer, peer)

    def _on_verify_auth(self, request: m.VerifyAuth, peer: bytes) -> None:
        reason = ""
        try:
            now = datetime.datetime.now(datetime.UTC)
            how = signer.verify_auth(request, *self._credentials_of(request.peer), now)
            log.debug("peer %s has authenticated: %s", printable(request.peer), how)
        except signer.NotAuthentic as error:
            reason = printable(str(error), LONGEST_REASON)
            log.warning("peer %s is not authenticated: %s", printable(request.peer), reason)
        except signer.RequestRefused as error:
            self._refuse_auth(request, error, peer)
            return
        answer = m.AuthVerified(request_id=request.request_id, valid=not reason, reason=reason)
        self._worker.try_send(answer, peer)

    def _credentials_of(self, name: str) -> tuple[m.Peer, PeerCredentials]:
        generation = self._in_force
        peer = generation.peers.get(name) if generation else None
        credentials = generation.loaded.credentials.of(name) if generation else None
        if peer is None or credentials is None:
            raise signer.RequestRefused(f"the policy in force has no peer {printable(name)} that IKE is spoken with")
        return peer, credentials

    def _refuse_auth(self, request: m.ComputeAuth | m.VerifyAuth, reason: signer.RequestRefused, peer: bytes) -> None:
        if self._in_force is None:
            # This process has just started. The worker asks again when it is given the policy.
            log.debug("an AUTH request came before a policy was in force")
            return
        log.warning("%s for peer %s refused: %s", type(request).__name__, printable(request.peer), reason)
        self._worker.try_send(m.AuthRefused(request_id=request.request_id, reason=str(reason)), peer)


def _templates_of(request: m.ParsePolicy) -> SourceFile | None:
    if not request.templates_path:
        return None
    return SourceFile(
        path=request.templates_path,
        content=request.templates,
        mode=request.templates_mode,
        uid=request.templates_uid,
    )


def _same_for_kernel(one: _Generation, other: _Generation) -> bool:
    policies = one.loaded.policy, other.loaded.policy
    first, second = ((each.interfaces, each.unmatched, each.manual_sas, each.kernel_rules) for each in policies)
    return first == second


def _send_kernel_rules(agent: Channel, generation: _Generation, *, check_only: bool = False) -> None:
    policy = generation.loaded.policy
    agent.send(dataclasses.replace(_begin(generation), check_only=check_only))
    for rules in _chunks(policy.kernel_rules):
        agent.send(m.AddPolicy(generation=generation.number, rules=rules))
    for sas in _chunks(policy.manual_sas):
        agent.send(m.AddManualSas(generation=generation.number, sas=sas))
    agent.send(m.CommitPolicy(generation=generation.number, rules=len(policy.kernel_rules)))


def _changes(old: _Generation | None, new: LoadedPolicy) -> PolicyDiff:
    """What `new` changes in the policy in force."""
    if old is None:
        return diff(None, new.policy)
    return diff(old.loaded.policy, new.policy, new.credentials.other_psks(old.loaded.credentials))


def _send_negotiation_rules(link: Channel, generation: _Generation, worker: bytes, renewed: frozenset[str]) -> None:
    policy = generation.loaded.policy
    link.send(_begin(generation), worker)
    for peers in _chunks(policy.peers):
        anew = tuple(peer.name for peer in peers if peer.name in renewed)
        link.send(m.AddPeer(generation=generation.number, peers=peers, anew=anew), worker)
    for rules in _chunks(policy.negotiation_rules):
        link.send(m.AddNegotiationRule(generation=generation.number, rules=rules), worker)
    link.send(m.CommitPolicy(generation=generation.number, rules=len(policy.negotiation_rules)), worker)


def _encode_for_worker(generation: _Generation) -> None:
    """While the agent is at work: what the worker will be told is remembered in its encoded form (`codec`)."""
    for rules in _chunks(generation.loaded.policy.negotiation_rules):
        codec.encode(m.AddNegotiationRule(generation=generation.number, rules=rules))


def _begin(generation: _Generation) -> m.BeginPolicy:
    policy = generation.loaded.policy
    return m.BeginPolicy(
        generation=generation.number,
        interfaces=policy.interfaces,
        unmatched=policy.unmatched,
        half_open=policy.half_open,
    )


def _chunks(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(items), m.RULES_PER_MESSAGE):
        yield items[start : start + m.RULES_PER_MESSAGE]


def _bounded(complaints: tuple[str, ...]) -> tuple[str, ...]:
    if len(complaints) <= MOST_PROBLEMS:
        return complaints
    left_out = len(complaints) - MOST_PROBLEMS + 1
    return (*complaints[: MOST_PROBLEMS - 1], f"and {left_out} more")
