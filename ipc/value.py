"""Values: frozen, slotted, keyword-only dataclasses that cost little to declare.

Every process declares some hundred of them before it can do anything, and `dataclasses` compiles six methods for each:
that took half of the time in which a role comes up again. Here one is compiled, when it is needed, and the rest is
shared. What comes out is a dataclass for all who ask (fields, replace, asdict), and equal, hashable, shown and refused
to change in the same way.
"""

import dataclasses
import operator
from typing import Any, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")
_NOT_GIVEN = object()


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def value(cls: type[T]) -> type[T]:
    """Declares a value, as `dataclass(frozen=True, slots=True, kw_only=True)` does."""
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=True)(cls)
    fields = dataclasses.fields(made)
    made.__init__ = _initialiser_when_needed(made, fields)
    made.__setattr__ = _refuse_to_set
    made.__delattr__ = _refuse_to_delete
    made.__repr__ = _show
    made._compared = staticmethod(_getter([field.name for field in fields if field.compare]))
    made.__eq__ = _is_equal
    made.__hash__ = _hash
    made.__deepcopy__ = _itself
    return made  # type: ignore[no-any-return]


def _initialiser_when_needed(cls: Any, fields: tuple["dataclasses.Field[Any]", ...]) -> Any:
    """`__init__`, compiled at its first call: no process makes all that it declares."""

    def __init__(self: Any, **given: Any) -> None:
        cls.__init__ = _initialiser(cls, fields)
        cls.__init__(self, **given)

    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    return __init__


def _initialiser(cls: type, fields: tuple["dataclasses.Field[Any]", ...]) -> Any:
    """`__init__`, which fills the slots by their descriptors: there is no way around `__setattr__` but these."""
    names: dict[str, Any] = {}
    parameters, lines = [], []
    for field in fields:
        name = field.name
        names[f"_set_{name}"] = getattr(cls, name).__set__
        given = name
        if field.default_factory is not dataclasses.MISSING:
            names[f"_default_{name}"], names[f"_make_{name}"] = _NOT_GIVEN, field.default_factory
            given = f"_make_{name}() if {name} is _default_{name} else {name}"
        elif field.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = field.default
        parameters.append(f"{name}=_default_{name}" if f"_default_{name}" in names else name)
        lines.append(f"    _set_{name}(self, {given})\n")
    head = f"def __init__(self, *, {', '.join(parameters)}):\n" if parameters else "def __init__(self):\n    pass\n"
    exec(head + "".join(lines), names)  # as `dataclasses` does it
    made = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _getter(names: list[str]) -> Any:
    """The values of these attributes, as something that can be compared and hashed."""
    return operator.attrgetter(*names) if names else lambda _value: ()


def _is_equal(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self._compared(self) == self._compared(other)


def _hash(self: Any) -> int:
    return hash(self._compared(self))


def _itself(self: T, _memo: object) -> T:
    return self


def _show(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse_to_set(self: object, name: str, _value: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
