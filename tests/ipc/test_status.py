"""The schema of the status: made from the dataclasses. `python -m tests.ipc.test_status > docs/status.schema.json`."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ipc.status import Finding, SeenProcess, Status

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "status.schema.json"


def schema() -> Any:
    """What docs/status.schema.json must hold."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ipsecctl status --json",
        **plain(TypeAdapter(Status).json_schema(mode="serialization")),
    }


def plain(part: Any, names_follow: bool = False) -> Any:
    """Without the titles that only repeat the names of fields."""
    if isinstance(part, list):
        return [plain(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {key: value for key, value in part.items() if names_follow or key != "title"}
    return {key: plain(value, key in ("properties", "$defs") and not names_follow) for key, value in kept.items()}


def test_o11_the_schema_in_the_documents_is_that_of_the_status() -> None:
    assert json.loads(SCHEMA.read_text()) == schema()


def test_o11_what_is_printed_is_what_the_schema_says() -> None:
    process = SeenProcess(
        role="ike_worker", pid=7, start_time=1.0, uid=60701, age_s=2.0, state="sleeping", command="python -m ike_worker"
    )
    status = Status(
        running=True,
        phase="unknown",
        instance="/run/ipsecd",
        findings=(Finding(code="illicit-process", sentence="s", process=process), Finding(code="c", sentence="t")),
    )
    assert TypeAdapter(Status).validate_json(status.to_json(), strict=True) == status


def test_o11_something_else_is_not() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Status).validate_json('{"running": 1}', strict=True)


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
