"""A value behaves as the dataclass that it stands for."""

import copy
import dataclasses

import pytest

from ipc.value import value


@value
class Point:
    """A value."""

    x: int
    y: int = 0
    note: str = dataclasses.field(default="", compare=False, repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What it stands for."""

    x: int
    y: int = 0
    note: str = dataclasses.field(default="", compare=False, repr=False)


@value
class Nothing:
    """No fields."""


def test_it_is_equal_hashable_and_shown_like_a_dataclass() -> None:
    assert Point(x=1) == Point(x=1, y=0, note="other")
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != Model(x=1)
    assert hash(Point(x=1)) == hash(Model(x=1)) != hash(Point(x=2))
    assert repr(Point(x=1)) == repr(Model(x=1)).replace("Model", "Point")
    assert (Nothing(), hash(Nothing()), repr(Nothing())) == (Nothing(), hash(()), "Nothing()")
    single = {Point(x=1): "one"}
    assert single[Point(x=1)] == "one"


@pytest.mark.parametrize("wrong", [{}, {"y": 1}, {"x": 1, "z": 2}])
def test_its_fields_are_named_and_all_there(wrong: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        Point(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Point(1)  # type: ignore[misc,call-arg]


def test_it_can_not_be_changed() -> None:
    point = Point(x=1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        del point.x
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.other = 2  # type: ignore[attr-defined]
    assert not hasattr(point, "__dict__")


def test_it_is_a_dataclass_for_those_who_ask() -> None:
    point = Point(x=1, note="here")
    assert dataclasses.is_dataclass(Point)
    assert [field.name for field in dataclasses.fields(Point)] == ["x", "y", "note"]
    assert dataclasses.replace(point, y=5) == Point(x=1, y=5)
    assert dataclasses.asdict(point) == {"x": 1, "y": 0, "note": "here"}
    assert copy.deepcopy(point) == point


def test_a_field_may_be_made_anew_for_each() -> None:
    @value
    class Basket:
        """With a factory."""

        items: list[int] = dataclasses.field(default_factory=list)

    assert Basket().items is not Basket().items
    assert Basket(items=[1]).items == [1]
