"""Every sentence that the loader can say of a policy file has a file in the corpus that makes it say it.

Sentences are said where an error is raised, or `wrong` or `doubtful` is called. The corpus is read under a trace that
notes which of these lines were run.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from policy_loader import (
    addresses,
    authentication,
    manual,
    native,
    policy_file,
    proposals,
    reader,
    validate,
    values,
)
from policy_loader.errors import PolicyError
from tests.policy_loader.corpus_files import BAD, GOOD, load

MODULES: tuple[ModuleType, ...] = (
    *(addresses, authentication, manual, native, policy_file, proposals, reader, validate, values),
)
SPEAKERS = {"wrong", "doubtful", "_wrong", "Problem", "_syntax_error"}
ELSEWHERE = {
    ("policy_file.py", "_read_templates"): "test_policy_file.py",
    ("policy_file.py", "read_source"): "who may read the file: test_loader.py",
    ("validate.py", "_check_count"): "a file of so many rules is too long for a corpus",
    ("manual.py", "sas_of"): "a mistake of our own",
    ("reader.py", "_wrong"): "says what others give it",
}
"""Where a file of the corpus can't lead, and why."""


def sentences(module: ModuleType) -> Iterator[tuple[str, int]]:
    """Each place where `module` says something: file name and line."""
    path = Path(str(module.__file__))
    tree = ast.parse(path.read_text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or (path.name, function.name) in ELSEWHERE:
            continue
        for node in ast.walk(function):
            raised = isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
            told = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _name(node.value) in SPEAKERS
            if raised or told:
                yield str(path), node.lineno


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.fixture(scope="module")
def said() -> set[tuple[str, int]]:
    """All lines of MODULES that the corpus leads to."""
    files = {str(module.__file__) for module in MODULES}
    lines: set[tuple[str, int]] = set()

    def local_trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local_trace

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        return local_trace if frame.f_code.co_filename in files else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for path in (*BAD, *GOOD):
            try:
                load(path)
            except PolicyError:
                continue
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_sentence_has_a_file_in_the_corpus(module: ModuleType, said: set[tuple[str, int]]) -> None:
    wanted = set(sentences(module))
    assert wanted, "it says nothing: why is it looked at?"
    unsaid = sorted(f"{Path(file).name}:{line}" for file, line in wanted - said)
    assert not unsaid, f"no bad file leads to {unsaid}"
