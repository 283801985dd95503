"""The JSON Schema of the policy file, for editors, made from the declaration in `model.py`.

`python -m policy_loader.schema > docs/ipsec.spd.schema.json` writes it anew. It tells shapes and words; what the values
mean together only `ipsecctl check` knows.
"""

import json
from collections.abc import Iterable
from typing import Any

from policy_loader.keys import keys_of
from policy_loader.model import DEFAULTS, SPANS_SCHEMA, PeerEntry, ProposalSet, RuleEntry, Setup

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def policy_schema() -> Schema:
    """The schema of /etc/ipsec.spd. [setup] has nothing that must be there: it may stand in the templates instead."""
    return {
        "$schema": DIALECT,
        "title": "ipsec.spd, the Security Policy Database of ipsecd",
        **_object(
            {
                "setup": _table(Setup, "What concerns the whole host.", required=False),
                "proposals": _named(_table(ProposalSet, "Which algorithms IKE and ESP may use.")),
                "addresses": _named(SPANS_SCHEMA),
                "defaults": _object({kind: _defaults(kind) for kind in DEFAULTS}),
                "peers": _named(_table(PeerEntry, "Whom keys are negotiated with.")),
                "rules": {"type": "array", "items": _table(RuleEntry, "An entry; the first that matches decides.")},
            }
        ),
    }


def _table(cls: type, about: str, *, required: bool = True, names: Iterable[str] | None = None) -> Schema:
    keys = {name: facts for name, facts in keys_of(cls).items() if names is None or name in names}
    schema = _object({name: {"description": facts.about, **facts.schema} for name, facts in keys.items()})
    must = [name for name, facts in keys.items() if facts.missing] if required else []
    return {"description": about, **schema, **({"required": must} if must else {})}


def _defaults(kind: str) -> Schema:
    cls, names = DEFAULTS[kind]
    return _table(cls, f"What holds for {kind} that do not say it themselves.", required=False, names=names)


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _named(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def text() -> str:
    """The schema as it stands in docs/."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
