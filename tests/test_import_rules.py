"""Who may import whom (docs/architecture.md): what keeps the roles apart is read from the source of every package."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = frozenset({"ipc", "ike_worker", "kernel_agent", "policy_loader", "supervisor", "ipsecctl"})
SANS_IO_FORBIDDEN = frozenset({"socket", "os", "time", "random", "secrets", "zmq", "msgpack", "select", "subprocess"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module, and where."""

    file: str
    line: int
    module: str

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_in(source: str, file: str) -> Iterator[Import]:
    """Every import in a module, also inside of functions; a relative one counts as the module's own package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file=file, line=node.lineno, module=alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = f"{file.partition('/')[0]}.{module}"
            yield Import(file=file, line=node.lineno, module=module)
            # `from ipc import messages` imports ipc.messages.
            for alias in node.names:
                yield Import(file=file, line=node.lineno, module=f"{module}.{alias.name}")


def imports_under(folder: str) -> list[Import]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [one for path in paths for one in imports_in(path.read_text(), str(path.relative_to(ROOT)))]


def offenders(folder: str, forbidden: frozenset[str]) -> list[str]:
    return [str(one) for one in imports_under(folder) if one.top in forbidden]


def foreign(folder: str, allowed: frozenset[str]) -> list[str]:
    """Imports that are neither of the standard library, nor the package's own, nor in `allowed`."""
    known = sys.stdlib_module_names | allowed | {folder.partition("/")[0]}
    return [str(one) for one in imports_under(folder) if one.top not in known]


@pytest.mark.parametrize("package", sorted(OURS))
def test_every_package_is_looked_at(package: str) -> None:
    assert imports_under(package)


@pytest.mark.parametrize("package", ["ike_worker", "kernel_agent", "policy_loader"])
def test_roles_never_import_each_other(package: str) -> None:
    assert offenders(package, OURS - {"ipc", package}) == []


def test_supervisor_imports_only_ipc_psutil_and_the_standard_library() -> None:
    assert foreign("supervisor", frozenset({"ipc", "psutil", "zmq"})) == []


def test_supervisor_uses_zeromq_only_for_the_context_that_ipc_takes() -> None:
    assert {one.file for one in imports_under("supervisor") if one.top == "zmq"} <= {"supervisor/channels.py"}


def test_ipsecctl_imports_only_ipc_the_loaders_pure_parts_psutil_and_the_standard_library() -> None:
    assert foreign("ipsecctl", frozenset({"ipc", "policy_loader", "psutil", "zmq"})) == []
    impure = frozenset({"policy_loader.loader", "policy_loader.__main__"})
    assert [str(one) for one in imports_under("ipsecctl") if one.module in impure] == []


def test_ipc_imports_nothing_of_ours() -> None:
    assert offenders("ipc", OURS - {"ipc"}) == []


@pytest.mark.parametrize(
    ("library", "files"),
    [("zmq", {"ipc/channel.py", "ipc/loop.py", "ipc/process.py"}), ("msgpack", {"ipc/codec.py"})],
)
def test_ipc_keeps_each_library_in_its_place(library: str, files: set[str]) -> None:
    assert {one.file for one in imports_under("ipc") if one.top == library} <= files


def test_the_ikev2_core_touches_no_clock_no_randomness_and_no_io() -> None:
    assert offenders("ike_worker/ikev2", SANS_IO_FORBIDDEN) == []


def test_init_files_are_empty() -> None:
    files = [path for package in OURS for path in (ROOT / package).rglob("__init__.py")]
    assert len(files) >= len(OURS)
    assert [str(path.relative_to(ROOT)) for path in files if path.read_text().strip()] == []


def test_the_reader_of_imports_sees_all_their_forms() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    import e\n    from . import g\n"
    assert {one.module for one in imports_in(source, "pkg/x.py")} == {"a.b", "c", "c.d", "e", "pkg.", "pkg..g"}
