"""What is wrong in a file, or in options, that people write: which key, what was found, what is allowed. Pure.

pydantic checks them; its own words are for programmers and reach nobody. A text that was found is quoted only where
one of a few words is wanted, because elsewhere it may be a path, an address or a password.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_QUOTED = 60
_KINDS: Mapping[type, str] = {
    str: "a text", bytes: "bytes", list: "a list", tuple: "a list", dict: "keys with values"
}  # fmt: skip
# What is wanted, by the first part of pydantic's type of fault, such as "int" of "int_from_float".
_WANTED: Mapping[str, str] = {
    "string": "a text", "int": "a whole number", "float": "a number", "decimal": "a number", "bool": "true or false",
    "list": "a list", "tuple": "a list", "set": "a list", "frozen_set": "a list", "iterable": "a list",
    "dict": "keys with values", "mapping": "keys with values", "model": "keys with values",
    "date": "a day, as 2026-01-31", "time": "a time, as 07:30", "datetime": "a day and time, as 2026-01-31T07:30:00Z",
    "finite_number": "a number that is not infinite", "none": "nothing", "json": "JSON",
}  # fmt: skip
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
    "string_too_short": ("min_length", "a text of {} or more characters"),
    "string_too_long": ("max_length", "a text of {} characters at most"),
    "too_short": ("min_length", "{} or more entries"),
    "too_long": ("max_length", "{} entries at most"),
}
_MISSING = ("missing", "missing_argument")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_ABOUT_KEYS = (*_MISSING, *_UNKNOWN)  # here the last part of the place is the key itself, whatever it is called
# The patterns that people meet, in words.
_FORMS: Mapping[str, str] = {
    r"^[a-z0-9][a-z0-9_.-]{0,63}$": "a name of a-z 0-9 . _ -, at most 64 characters",
    r"^[a-z][a-z0-9_-]{0,39}$": "a name of a-z 0-9 _ -, at most 40 characters, a letter first",
    r"^[a-z][a-z0-9_]{0,39}$": "a name of a-z 0-9 _, at most 40 characters, a letter first",
    r"^[a-z][a-z0-9_]{0,59}$": "a name of a-z 0-9 _, at most 60 characters, a letter first",
    r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$": "a name of a-z 0-9 with single dashes, a letter first",
    r"^[a-z][a-z0-9 -]{2,59}$": "3 to 60 of a-z 0-9, space and dash, a letter first",
    r"^[A-Za-z_][A-Za-z0-9_]{0,99}$": "the name of an environment variable",
    r"^(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})$": "a version, as 1.0.0",
    r"^[a-z][a-z0-9_-]{0,39}@[1-9]\d{0,5}$": "a catalogue and its version, as heart@1",
    r"^([01]\d|2[0-3]):[0-5]\d$": "a time in quotes, as '07:30'",
    r"^\S.{1,58}\S$": "3 to 60 characters, no space at the ends",
    r"^[0-9a-f]{64}$": "64 hex digits, in small letters",
    r"^([0-9a-f]{4}-){9}[0-9a-f]{4}$": "a fingerprint: ten groups of four hex digits with dashes",
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$": "a time in UTC, as 2026-01-31T07:30:00Z",
}


@dataclass(frozen=True)
class KeyFault:
    """What is wrong at one key. place, kind: pydantic's way to it, and its name of the fault; text: in plain words."""

    place: tuple[int | str, ...]
    kind: str
    text: str

    @property
    def key(self) -> str:
        """Such as "floors.sigma"; empty: the whole file."""
        return _key(self.place, self.kind)

    def __str__(self) -> str:
        return f"{self.key or 'the whole'}: {self.text}"


def faults(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first fault, as "floors.sigma: found 0; allowed is more than 0", and how many more there are.

    model: what was read; with it an unknown key is told with those that there are.
    """
    first, *others = all_faults(error, model)
    return str(first) + (f" (and {len(others)} more)" if others else "")


def all_faults(error: ValidationError, model: type[BaseModel] | None = None) -> list[KeyFault]:
    """Every fault, one a key: a value that may be of several kinds has one fault for all of them.

    Unknown keys come first: a key that is misspelt is missing as well, and the spelling is what to correct.
    """
    found: dict[str, list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        found.setdefault(_key(item["loc"], item["type"]), []).append(item)
    told = [KeyFault(items[0]["loc"], items[0]["type"], _together(items, model)) for items in found.values()]
    return sorted(told, key=lambda fault: fault.kind not in _UNKNOWN)


def _key(place: Sequence[int | str], kind: str) -> str:
    """Where a fault is, with dots; list entries count from 0. pydantic puts kinds of values last: they are no keys."""
    if place and kind not in _ABOUT_KEYS and _is_kind(place[-1]):
        place = place[:-1]
    return ".".join(_short(part) for part in place)


def _is_kind(part: int | str) -> bool:
    return isinstance(part, str) and (part in ("bool", "int", "float", "str", "constrained-str") or part.endswith("]"))


def _together(items: Sequence[ErrorDetails], model: type[BaseModel] | None) -> str:
    """The faults of one key: of a value that may be of several kinds, each kind says what it would allow."""
    first, *others = items
    if not others or not all(item["loc"] and _is_kind(item["loc"][-1]) for item in items):
        return plain(first, model)
    allowed = dict.fromkeys(_allowed(item["type"], item.get("ctx", {})) for item in items)
    return f"found {_found(first['input'], first['type'])}; allowed is {' or '.join(allowed)}"


def plain(item: ErrorDetails, model: type[BaseModel] | None = None) -> str:
    """One fault in plain words, without its key."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in ("value_error", "assertion_error"):  # our own words
        return str(context.get("error", "")) or "not allowed here"
    if kind in _MISSING:
        return "it is missing"
    if kind in _UNKNOWN:
        return f"there is no such key{_instead(str(item['loc'][-1]), _keys(model, item['loc'][:-1]))}"
    tag = str(context.get("discriminator", "")).replace("'", "")
    if kind == "union_tag_not_found":
        return f"its key {tag} is missing"
    if kind == "union_tag_invalid":
        tags = str(context["expected_tags"]).replace("'", "")
        return f"its key {tag} says '{_short(context['tag'])}'; allowed is {tags}"
    return f"found {_found(item['input'], kind)}; allowed is {_allowed(kind, context)}"


def _allowed(kind: str, context: Mapping[str, Any]) -> str:
    if kind in ("literal_error", "enum"):
        return str(context["expected"]).replace("'", "")
    if kind == "string_pattern_mismatch":
        return _FORMS.get(context["pattern"], f"a text of the form {context['pattern']}")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return words.format(_number(context[name]))
    return next((_WANTED[part] for part in _starts(kind) if part in _WANTED), "something else")


def _starts(kind: str) -> Iterator[str]:
    """The first words of a type of fault, the longest first: "a_b_c", "a_b", "a"."""
    parts = kind.split("_")
    for count in range(len(parts), 0, -1):
        yield "_".join(parts[:count])


def _found(value: object, kind: str) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool | int | float):
        return _number(value)
    if isinstance(value, str) and kind in ("literal_error", "enum"):
        return f"'{_short(value)}'"
    if kind.endswith(("too_short", "too_long")) and hasattr(value, "__len__"):
        return f"{len(value)} {'characters' if isinstance(value, str) else 'entries'}"
    return next((words for type_, words in _KINDS.items() if isinstance(value, type_)), "something of another kind")


def _number(value: object) -> str:
    """A number as people write it: 3 for 3.0; also true and false."""
    whole = isinstance(value, float) and value.is_integer()
    return _short(f"{value:.0f}" if whole else str(value).lower())


def _short(text: object) -> str:
    shown = str(text)
    return shown if len(shown) <= MAX_QUOTED else shown[:MAX_QUOTED] + "…"


def _instead(word: str, known: Sequence[str]) -> str:
    """The keys that there are, the one that was meant first."""
    if not known:
        return ""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; allowed is {', '.join(known)}"


def _keys(model: type[BaseModel] | None, place: Sequence[int | str]) -> list[str]:
    """The keys that a model allows at a place; a part that is no field of it, such as a list entry, leads nowhere."""
    here = [model] if model is not None else []
    for part in place:
        below = [one.model_fields[part].annotation for one in here if part in one.model_fields]
        here = [found for annotation in below for found in _models(annotation)] if below else here
    return sorted({field.alias or name for one in here for name, field in one.model_fields.items()})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model inside an annotation, such as the two of `tuple[A | B, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)
