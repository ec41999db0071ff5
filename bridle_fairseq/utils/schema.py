"""What a value from a file or a configuration may be: its exact type, and bounds on both sides.

A dataclass declares the kind of each field in the field's metadata (:func:`described`). Values are checked before
anything is built or allocated from them. A value is never converted.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any, Protocol

from bridle_fairseq.utils.errors import InputError

_SHOWN = reprlib.Repr()  # of any value: short, however long or deep it is
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60


def shown(value: object) -> str:
    """A value of any size and depth, as messages show it."""
    return _SHOWN.repr(value)


class Kind(Protocol):
    """Kind of a value."""

    def problem(self, name: str, value: object) -> str | None:
        """``{name} is {value}; expected ..``, if the value is not of this kind; else None."""


def check(kind: Kind, name: str, value: object, source: str | None = None) -> None:
    """Check that a value is of a kind.

    Args:
        kind: the kind.
        name: name of the value in messages; empty: that of the field in it.
        value: any value.
        source: file that it is from, for messages.

    Raises:
        InputError: it is not.
    """
    problem = kind.problem(name, value)
    if problem is not None:
        raise InputError(f"{source}: {problem}" if source else problem)


class _Simple:
    """A kind without parts."""

    def holds(self, value: Any) -> bool:
        """Whether a value is of this kind."""
        raise NotImplementedError

    def problem(self, name: str, value: object) -> str | None:
        """See :class:`Kind`."""
        return None if self.holds(value) else f"{name} is {shown(value)}; expected {self}"


@dataclasses.dataclass(frozen=True)
class Whole(_Simple):
    """A whole number from ``low`` to ``high``; True and 1.0 are none."""

    low: int
    high: int

    def holds(self, value: Any) -> bool:
        """See :class:`Kind`."""
        return type(value) is int and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"at least {self.low} and at most {self.high}, a whole number"


@dataclasses.dataclass(frozen=True)
class Real(_Simple):
    """A finite number from ``low`` to ``high``, whole or not.

    Attributes:
        low, high: bounds.
        above: ``low`` itself is excluded.
        below: ``high`` itself is excluded.
        text: what messages expect, in place of the bounds.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    text: str = ""

    def holds(self, value: Any) -> bool:
        """See :class:`Kind`."""
        if type(value) not in (int, float) or not self.low <= value <= self.high:  # NaN is not
            return False
        return not (self.above and value == self.low or self.below and value == self.high)

    def __str__(self) -> str:
        low = f"more than {self.low:g}" if self.above else f"at least {self.low:g}"
        high = f"less than {self.high:g}" if self.below else f"at most {self.high:g}"
        return self.text or f"{low} and {high}"


@dataclasses.dataclass(frozen=True)
class OneOf(_Simple):
    """One of some strings; ``text`` names them in messages if they are many."""

    choices: tuple[str, ...]
    text: str = ""

    def holds(self, value: Any) -> bool:
        """See :class:`Kind`."""
        return type(value) is str and value in self.choices

    def __str__(self) -> str:
        return self.text or f"one of {', '.join(self.choices)}"


@dataclasses.dataclass(frozen=True)
class Flag(_Simple):
    """True or False."""

    def holds(self, value: Any) -> bool:
        """See :class:`Kind`."""
        return type(value) is bool

    def __str__(self) -> str:
        return "true or false"


@dataclasses.dataclass(frozen=True)
class String(_Simple):
    """A string of at most ``longest`` characters, all of them in ``allowed`` (a class of a regular expression)."""

    longest: int = 4096
    allowed: str = ""

    def holds(self, value: Any) -> bool:
        """See :class:`Kind`."""
        if type(value) is not str or len(value) > self.longest:
            return False
        return not self.allowed or re.fullmatch(f"{self.allowed}*", value) is not None

    def __str__(self) -> str:
        return f"a string of at most {self.longest} characters{f' {self.allowed}' * bool(self.allowed)}"


@dataclasses.dataclass(frozen=True)
class Anything(_Simple):
    """Any value: one that is never used, or that is checked elsewhere."""

    def holds(self, value: Any) -> bool:
        """True."""
        return True


@dataclasses.dataclass(frozen=True)
class ListOf:
    """A list of ``shortest`` to ``longest`` values of one kind."""

    kind: Kind
    shortest: int
    longest: int

    def problem(self, name: str, value: object) -> str | None:
        """See :class:`Kind`."""
        if not isinstance(value, (list, tuple)) or not self.shortest <= len(value) <= self.longest:
            return f"{name} is {shown(value)}; expected a list of {self.shortest} to {self.longest} values"
        problems = (self.kind.problem(f"{name}[{number}]", item) for number, item in enumerate(value))
        return next(filter(None, problems), None)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A list of two values, each of its kind."""

    first: Kind
    second: Kind

    def problem(self, name: str, value: object) -> str | None:
        """See :class:`Kind`."""
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            return f"{name} is {shown(value)}; expected two values"
        return self.first.problem(f"{name}[0]", value[0]) or self.second.problem(f"{name}[1]", value[1])


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A mapping with named values.

    Attributes:
        required: kinds of values that must be there.
        optional: kinds of values that may be missing.
        others: kind of all other values; None: there may be none.
    """

    required: Mapping[str, Kind]
    optional: Mapping[str, Kind] = dataclasses.field(default_factory=dict)
    others: Kind | None = None

    def problem(self, name: str, value: object) -> str | None:
        """See :class:`Kind`."""
        if not isinstance(value, Mapping):
            return f"{name or 'the content'} is {shown(value)}; expected values by name"
        known = {**self.optional, **self.required}
        for missing in self.required:
            if missing not in value:
                return f"{_joined(name, missing)} is missing; expected {self.required[missing]}"
        for key, item in value.items():
            kind = known.get(key, self.others)
            if kind is None or type(key) is not str:
                return f"{_joined(name, shown(key))} is unknown; expected only {', '.join(sorted(known))}"
            problem = kind.problem(_joined(name, key if key in known else shown(key)), item)
            if problem is not None:
                return problem
        return None

    def __str__(self) -> str:
        return "values by name"


def described(kind: Kind, **arguments: Any) -> Any:
    """A dataclass field with its kind; the arguments are those of :func:`dataclasses.field`."""
    return dataclasses.field(**arguments, metadata={"kind": kind})


def kinds_of(cls: Any) -> dict[str, Kind]:
    """Kinds of the fields of a dataclass that declares them, by name."""
    return {field.name: field.metadata["kind"] for field in dataclasses.fields(cls) if "kind" in field.metadata}


def record_of(cls: Any) -> Mapped:
    """The mapping from which a dataclass can be made: fields with a default may be missing."""
    kinds, missing = kinds_of(cls), dataclasses.MISSING
    optional = {f.name for f in dataclasses.fields(cls) if f.default is not missing or f.default_factory is not missing}
    required = {name: kind for name, kind in kinds.items() if name not in optional}
    return Mapped(required, {name: kinds[name] for name in kinds if name in optional})


def check_product(limit: int, values: Mapping[str, int], source: str | None = None) -> None:
    """Check that the product of some values, by name, is at most ``limit``.

    Raises:
        InputError: it is more.
    """
    if math.prod(values.values()) > limit:
        given = " and ".join(f"{name} {value}" for name, value in values.items())
        raise InputError(f"{f'{source}: ' if source else ''}{given}; expected a product of at most {limit}")


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
