"""The corpus of policy files: NAME.spd, what must be said of it in NAME.expected, and perhaps NAME.templates."""

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from ipc.types import Secret
from policy_loader import policy_file
from policy_loader.policy_file import FetchedFile, FoundHost, LoadedPolicy
from policy_loader.rule_ids import RuleIds
from policy_loader.sources.file import SourceFile

CORPUS = Path(__file__).parent / "corpus"
GOOD = sorted((CORPUS / "good").glob("*.spd"))
BAD = sorted((CORPUS / "bad").glob("*.spd"))


def _file(content: str, mode: int = 0o600, error: str = "") -> FetchedFile:
    return FetchedFile(content=Secret(content.encode()), mode=mode, uid=0, error=error)


KEY_FILE = _file("a key that came from a file\n")
"""What every file holds that a policy names, but for these."""
FILES = {
    "/etc/ipsecd/open.psk": _file("a key that the group may read\n", mode=0o640),
    "/etc/ipsecd/empty.psk": _file("\n"),
    "/etc/ipsecd/huge.psk": _file("x" * 5000),
    "/etc/ipsecd/missing.psk": _file("", error="no such file"),
    "/etc/ipsecd/missing.key": _file("", error="no such file"),
    "/etc/ipsecd/in.key": _file("a1" * 64 + "\n"),
    "/etc/ipsecd/out.key": _file("0x" + "b2" * 64),
    "/etc/ipsecd/short.key": _file("a1" * 10),
    "/etc/ipsecd/open.key": _file("a1" * 64, mode=0o604),
}
HOSTS = {
    "found.example.net": FoundHost(addresses=(ip_address("2001:db8::9"), ip_address("198.51.100.9"))),
    "lost.example.net": FoundHost(addresses=(), error="no answer within 3 s"),
}


def load(path: Path) -> LoadedPolicy:
    """The policy of a file; PolicyError with all that is wrong with it."""
    file = policy_file.read(path.name, path.read_bytes(), 0o600, 0, _templates(path.with_suffix(".templates")))
    return file.compile({name: FILES.get(name, KEY_FILE) for name in file.secret_files()}, RuleIds(), HOSTS)


def written(complaints: Iterable[str]) -> str:
    """As it stands in the file with what is expected."""
    return "".join(f"{one}\n" for one in complaints)


def _templates(path: Path) -> SourceFile | None:
    if not path.exists():
        return None
    return SourceFile(path=path.name, content=Secret(path.read_bytes()), mode=0o600, uid=0)
