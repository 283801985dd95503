"""How a table of the policy file is declared: a dataclass, each of whose fields says how its key is read.

The same declaration makes the reader (`model.read`), the JSON Schema (`schema.py`), and the tests of the manual.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ipc.value import value

_METADATA = "key"


@value
class KeyFacts:
    """What is known of one key."""

    parse: Callable[..., Any]
    """From what TOML holds to the value; ValueError with a sentence, or BadItems, if it is none."""
    schema: Mapping[str, Any]
    """JSON Schema of what TOML holds."""
    about: str
    """One sentence for people."""
    missing: str
    """What is said where a key that must be there is not; empty if it may be left out."""
    secret: bool
    """No message may show its value."""
    grouped: bool
    """`parse` wants the groups of [addresses] as its second argument."""


def key(
    parse: Callable[..., Any],
    schema: Mapping[str, Any],
    about: str,
    *,
    default: Any = None,
    missing: str = "",
    secret: bool = False,
    grouped: bool = False,
) -> Any:
    """A dataclass field that is a key of a table; with `missing` it must be there, else it has `default`."""
    facts = KeyFacts(parse=parse, schema=schema, about=about, missing=missing, secret=secret, grouped=grouped)
    if missing:
        return dataclasses.field(metadata={_METADATA: facts}, repr=not secret)
    return dataclasses.field(metadata={_METADATA: facts}, default=default, repr=not secret)


@functools.cache
def keys_of(table: type) -> Mapping[str, KeyFacts]:
    """The keys of a declared table, in the order of their declaration."""
    return {one.name: one.metadata[_METADATA] for one in dataclasses.fields(table) if _METADATA in one.metadata}
