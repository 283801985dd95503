"""A policy file from its bytes to a policy, in the two steps that need no input or output themselves.

`read` does all that the file alone allows; what it names besides (`PolicyFile.psk_files`) somebody else must fetch;
`PolicyFile.compile` does the rest. The loader has the supervisor fetch them; a command that checks a file can do it
by itself.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ipc.types import Secret
from policy_loader import model, native, validate
from policy_loader.compile import Policy, compile_policy
from policy_loader.credentials import store
from policy_loader.credentials.store import CredentialStore
from policy_loader.errors import PolicyError, Problem, printable
from policy_loader.model import Draft
from policy_loader.native import Document
from policy_loader.rule_ids import RuleIds
from policy_loader.sources import file
from policy_loader.validate import Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFile:
    """A file that a policy names, or why it can't be had (`error` is then not empty)."""

    content: Secret
    mode: int
    uid: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """A policy and the secrets it needs; `warnings` have the form of errors."""

    policy: Policy
    credentials: CredentialStore
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """A policy file that is good as far as it goes: its pre-shared keys in files are still to come."""

    sha256: bytes
    _document: Document
    _draft: Draft = field(repr=False)
    _findings: Findings = field(repr=False)

    def line_of(self, position: int) -> int:
        """The line on which the rule of this position begins."""
        return self._document.position(self._findings.selected[position].rule.key).line

    def psk_files(self) -> tuple[str, ...]:
        """The paths to fetch, each once."""
        return tuple(dict.fromkeys(peer.psk_file for peer in self._draft.peers.values() if peer.psk_file is not None))

    def compile(self, files: Mapping[str, FetchedFile], rule_ids: RuleIds) -> LoadedPolicy:
        """The policy, with the pre-shared keys of `files` (by path); PolicyError where one of them is not good."""
        psks = {}
        problems = []
        warnings = list(self._findings.warnings)
        for name, peer in self._draft.peers.items():
            key = ("peers", name, "psk_file" if peer.psk_file else "psk")
            try:
                psk = peer.psk if peer.psk_file is None else _psk(peer.psk_file, files[peer.psk_file])
            except ValueError as error:
                problems.append(Problem(key=key, text=str(error)))
                continue
            if psk is not None:
                psks[name] = psk
                if store.is_short(psk):
                    text = (
                        f"the key has under {store.SHORT_PSK_BYTES} bytes: it can be guessed (openssl rand -base64 32)"
                    )
                    warnings.append(Problem(key=key, text=text))
        if problems:
            raise PolicyError(_complaints(self._document, problems))
        return LoadedPolicy(
            policy=compile_policy(self._draft, self._findings.selected, self.sha256, rule_ids),
            credentials=CredentialStore(psks),
            warnings=_complaints(self._document, warnings),
        )


def read(path: str, content: bytes, mode: int, uid: int) -> PolicyFile:
    """The policy file with these bytes, permission bits and owner; PolicyError with all that is wrong with it."""
    complaints = file.complaints(mode, uid)
    if complaints:
        raise PolicyError(f"{printable(path)}:1:1: file: {text}" for text in complaints)
    document = native.parse(path, content)
    draft = model.read(document.data)
    findings = validate.check(draft)
    problems = (*draft.problems, *findings.problems)
    if problems:
        raise PolicyError(_complaints(document, problems))
    return PolicyFile(sha256=hashlib.sha256(content).digest(), _document=document, _draft=draft, _findings=findings)


def _psk(path: str, fetched: FetchedFile) -> Secret:
    try:
        if fetched.error:
            raise ValueError(printable(fetched.error))
        return store.psk_of_file(fetched.content, fetched.mode, fetched.uid)
    except ValueError as error:
        raise ValueError(f"{printable(path)}: {error}") from None


def _complaints(document: Document, problems: Iterable[Problem]) -> tuple[str, ...]:
    ordered = sorted(problems, key=lambda problem: document.position(problem.key))
    return tuple(document.complaint(problem) for problem in ordered)
