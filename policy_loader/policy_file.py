"""A policy file from its bytes to a policy, in the two steps that need no input or output themselves.

`read` does all that the file alone allows; what it names besides (`PolicyFile.secret_files`, `host_names`) somebody
else must find; `PolicyFile.compile` does the rest. The loader has the supervisor find them; a command that checks a
file can do it by itself.
"""

import datetime
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field

from ipc.garbage import uncollected
from ipc.types import IpAddress, Secret
from ipc.value import value
from policy_loader import manual, native, reader, validate
from policy_loader.compile import FromOutside, Policy, compile_policy, with_rules_of
from policy_loader.credentials import loading
from policy_loader.credentials.files import FetchedFile
from policy_loader.credentials.loading import CredentialReader, PublicFacts
from policy_loader.credentials.revocation import StatusFile
from policy_loader.credentials.store import CredentialStore, PeerCredentials
from policy_loader.errors import Key, PolicyError, Problem, printable
from policy_loader.manual import ManualKeys
from policy_loader.model import Draft, PeerEntry
from policy_loader.native import Document
from policy_loader.rule_ids import RuleIds
from policy_loader.sources.file import SourceFile
from policy_loader.sources.source import PolicySource
from policy_loader.validate import Findings
from policy_loader.values import HostName


@value
class FoundHost:
    """The addresses of a host name, most wanted first, or why there are none (`error` is then not empty)."""

    addresses: tuple[IpAddress, ...]
    error: str = ""


@value
class LoadedPolicy:
    """A policy and the secrets it needs; `warnings` have the form of errors."""

    policy: Policy
    credentials: CredentialStore
    warnings: tuple[str, ...]
    file: "PolicyFile" = field(repr=False)
    outside: FromOutside = field(repr=False)
    """What the policy was made of, besides the file."""


@value
class PolicyFile:
    """A policy file that is good as far as it goes: secrets in files and the addresses of hosts are still to come."""

    sha256: bytes
    _source: PolicySource = field(repr=False)
    _templates: PolicySource | None = field(repr=False)
    _document: Document = field(repr=False)
    _shared: reader.Templates = field(repr=False)
    _draft: Draft = field(repr=False)
    _findings: Findings = field(repr=False)

    def _came_from(self, source: PolicySource, templates: PolicySource | None) -> bool:
        """Whether reading these would give the same once more: same bytes, and as much reason to believe them."""
        return self._source == source and self._templates == templates

    def line_of(self, position: int) -> int:
        """The line on which the rule of this position begins."""
        return self._document.position(self._findings.selected[position].rule.key).line

    def secret_files(self) -> tuple[str, ...]:
        """The paths to fetch, each once."""
        paths = (path for peer in self._draft.peers.values() for path in _files_of(peer))
        return tuple(dict.fromkeys(paths))

    def host_names(self) -> tuple[str, ...]:
        """The names of peers to look up, each once."""
        addresses = (peer.address for peer in self._draft.peers.values())
        return tuple(dict.fromkeys(str(address) for address in addresses if isinstance(address, HostName)))

    @uncollected()
    def compile(
        self,
        files: Mapping[str, FetchedFile],
        rule_ids: RuleIds,
        hosts: Mapping[str, FoundHost] | None = None,
        now: datetime.datetime | None = None,
        former: LoadedPolicy | None = None,
    ) -> LoadedPolicy:
        """The policy, with the secrets of `files` (by path) and the addresses of `hosts` (by name).

        `now` is the present if it is not given. PolicyError where one of the files is not good. A host that was not
        found is a warning: its rules drop what they should protect, until a reload finds it. What is equal to what
        `former` has is the same object: it compares and is sent fast. Files and hosts are judged each time.
        """
        now = now or datetime.datetime.now(datetime.UTC)
        outside = _Outside(files, hosts or {}, self._findings.warnings, now)
        for name, peer in self._draft.peers.items():
            outside.take(name, peer)
        if outside.problems:
            raise PolicyError(_complaints(self._document, outside.problems))
        found = FromOutside(hosts=outside.addresses, manual_keys=outside.manual_keys, facts=outside.facts)
        if former is not None and former.file is self and former.outside == found:
            policy = former.policy
        else:
            known = former.policy.compiled if former is not None and self._compiles_as(former, found) else ()
            policy = compile_policy(self._draft, self._findings.selected, self.sha256, rule_ids, found, known)
            policy = policy if former is None else with_rules_of(policy, former.policy)
        return LoadedPolicy(
            policy=policy,
            credentials=CredentialStore(outside.credentials, outside.status_files),
            warnings=_complaints(self._document, outside.warnings),
            file=self,
            outside=found,
        )

    def _compiles_as(self, former: LoadedPolicy, outside: FromOutside) -> bool:
        """Whether a rule that is the same becomes the same."""
        mine, other = self._draft, former.file._draft
        return (mine.peers, mine.proposals, outside) == (other.peers, other.proposals, former.outside)

    def _was_read(self) -> reader.WasRead:
        return reader.WasRead(data=self._document.data, templates=self._shared, draft=self._draft)

    def _was_checked(self) -> validate.WasChecked:
        return validate.WasChecked(draft=self._draft, findings=self._findings)


def _files_of(peer: PeerEntry) -> tuple[str, ...]:
    if peer.manual:
        return tuple(path for path in (peer.key_in_file, peer.key_out_file) if path is not None)
    return loading.files_of(peer)


def read(
    path: str,
    content: bytes,
    mode: int,
    uid: int,
    templates: PolicySource | None = None,
    former: PolicyFile | None = None,
) -> PolicyFile:
    """The policy in a file with these bytes, permission bits and owner; otherwise as `read_source`."""
    return read_source(SourceFile(path=path, content=Secret(content), mode=mode, uid=uid), templates, former)


@uncollected()
def read_source(
    source: PolicySource, templates: PolicySource | None = None, former: PolicyFile | None = None
) -> PolicyFile:
    """The policy of a source, with the templates of another; PolicyError with all that is wrong with either.

    What `former` made of the same text is taken from there, the whole of it or rule by rule.
    """
    if former is not None and former._came_from(source, templates):
        return former
    complaints = [
        f"{printable(one.path)}:1:1: file: {text}"
        for one in (templates, source)
        if one is not None
        for text in one.complaints()
    ]
    if complaints:
        raise PolicyError(complaints)
    shared, shared_complaints = _read_templates(templates)
    content = source.content.reveal()
    try:
        document = native.parse(source.path, content)
    except PolicyError as error:
        raise PolicyError((*shared_complaints, *error.complaints)) from None
    draft = reader.read(document.data, shared, None if former is None else former._was_read())
    findings = validate.check(draft, None if former is None else former._was_checked())
    problems = (*draft.problems, *findings.problems)
    if problems or shared_complaints:
        raise PolicyError((*shared_complaints, *_complaints(document, problems)))
    return PolicyFile(
        sha256=hashlib.sha256(content).digest(),
        _source=source,
        _templates=templates,
        _document=document,
        _shared=shared,
        _draft=draft,
        _findings=findings,
    )


def _read_templates(source: PolicySource | None) -> tuple[reader.Templates, tuple[str, ...]]:
    """The templates, and all that is wrong with them."""
    if source is None:
        return reader.NO_TEMPLATES, ()
    try:
        document = native.parse(source.path, source.content.reveal())
    except PolicyError as error:
        return reader.NO_TEMPLATES, error.complaints
    templates = reader.read_templates(document.data)
    return templates, _complaints(document, templates.problems)


class _Outside:
    """What peers need from outside of the file, and what is wrong with it."""

    def __init__(
        self,
        files: Mapping[str, FetchedFile],
        hosts: Mapping[str, FoundHost],
        warnings: Iterable[Problem],
        now: datetime.datetime,
    ) -> None:
        self._files = files
        self._hosts = hosts
        self._reader = CredentialReader(files, now)
        self.credentials: dict[str, PeerCredentials] = {}
        self.facts: dict[str, PublicFacts] = {}
        self.manual_keys: dict[str, ManualKeys] = {}
        self.addresses: dict[str, IpAddress | None] = {}
        self._problems: list[Problem] = []
        self._warnings = list(warnings)

    @property
    def problems(self) -> list[Problem]:
        """What forbids the policy."""
        return [*self._problems, *self._reader.problems]

    @property
    def status_files(self) -> tuple[StatusFile, ...]:
        """Of all peers."""
        return self._reader.status_files

    @property
    def warnings(self) -> list[Problem]:
        """What an operator would want to know."""
        return [*self._warnings, *self._reader.warnings]

    def take(self, name: str, peer: PeerEntry) -> None:
        """Everything of one peer."""
        if isinstance(peer.address, HostName):
            self._take_address(("peers", name, "address"), peer.address, peer)
        if peer.manual:
            self._take_manual_keys(name, peer)
        else:
            self._take_credentials(name, peer)

    def _take_address(self, key: Key, host: HostName, peer: PeerEntry) -> None:
        found = self._hosts.get(host) or FoundHost(addresses=(), error="nobody has looked it up")
        family = peer.local_address.version if peer.local_address is not None else None
        fitting = [one for one in found.addresses if family in (None, one.version)]
        self.addresses[host] = fitting[0] if fitting else None
        if not fitting:
            why = printable(found.error) or f"none of its addresses is IPv{family}, as local_address is"
            text = f'"{host}" is not found: {why}. The rules of this peer drop their packets until a reload finds it'
            self._warnings.append(Problem(key=key, text=text))

    def _take_credentials(self, name: str, peer: PeerEntry) -> None:
        credentials = self._reader.credentials_of(name, peer)
        if credentials is None:
            return
        self.credentials[name] = credentials
        self.facts[name] = loading.public_facts(credentials)
        if peer.local_identity() is None and self.facts[name].local_id is None:
            text = "is missing: our certificate has no subject that could say who we are; write one of its other names"
            self._problems.append(Problem(key=("peers", name, "local_id"), text=text))

    def _take_manual_keys(self, name: str, peer: PeerEntry) -> None:
        def read_key(file: FetchedFile) -> Secret:
            return manual.key_of_file(file.content, file.mode, file.uid, peer.algorithm)

        inward = self._secret(("peers", name, "key_in"), peer.key_in, peer.key_in_file, read_key)
        outward = self._secret(("peers", name, "key_out"), peer.key_out, peer.key_out_file, read_key)
        if inward is None or outward is None:
            return
        self.manual_keys[name] = ManualKeys(inward=inward, outward=outward)
        if inward == outward:
            text = "the key is the same in both directions: each should have one of its own"
            self._warnings.append(Problem(key=("peers", name, "key_out"), text=text))

    def _secret(
        self, key: Key, given: Secret | None, path: str | None, read: Callable[[FetchedFile], Secret]
    ) -> Secret | None:
        """The secret that stands in the policy, or in the file `path`; None if that is not good, which is said."""
        if path is None:
            return given
        fetched = self._files[path]
        try:
            if fetched.error:
                raise ValueError(printable(fetched.error))
            return read(fetched)
        except ValueError as error:
            self._problems.append(Problem(key=(*key[:-1], f"{key[-1]}_file"), text=f"{printable(path)}: {error}"))
            return None


def _complaints(document: Document, problems: Iterable[Problem]) -> tuple[str, ...]:
    ordered = sorted(problems, key=lambda problem: document.position(problem.key))
    return tuple(document.complaint(problem) for problem in ordered)
