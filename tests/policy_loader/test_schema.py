"""The JSON Schema that editors use: current, and of one mind with the loader about the corpus and the examples."""

import json
from pathlib import Path

import jsonschema
import pytest
import tomli

from policy_loader import schema

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
GOOD = sorted([*(CORPUS / "good").glob("*.spd"), *(ROOT / "examples").rglob("*.spd")])
VALIDATOR = jsonschema.Draft202012Validator(schema.policy_schema())


def test_the_schema_in_docs_is_the_present_one() -> None:
    told = (ROOT / "docs/ipsec.spd.schema.json").read_text()
    assert told == schema.text(), "python -m policy_loader.schema > docs/ipsec.spd.schema.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(told))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_good_file_fits(path: Path) -> None:
    VALIDATOR.validate(tomli.loads(path.read_text()))


@pytest.mark.parametrize(
    "name",
    [
        *("unknown-key", "unknown-table", "rule-words", "rule-missing-keys", "peer-not-a-table", "setup-data-path"),
        *("peer-times", "rule-ports", "rule-protocol", "proposal-empty", "rules-not-a-list", "peer-missing-keys"),
    ],
)
def test_a_bad_shape_does_not_fit(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(tomli.loads((CORPUS / "bad" / f"{name}.spd").read_text()))
