"""A small, strict subset of YAML for rule packs, with the line of every value.

Allowed: block and flow mappings with unique string keys, sequences, and scalars. Refused: anchors, aliases,
tags, several documents, more than 256 KiB, more than 12 levels, duplicate keys. Plain scalars follow YAML 1.2:
only `true`, `false` and `null` are words; `yes`, `on`, `12:30` and dates stay text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from cameo_client.tags.finding import Fault

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
Path = tuple[str | int, ...]

_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_QUOTED = ("'", '"', "|", ">")
_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,2})?")


class YamlFault(Fault):
    """A refusal with its line (1-based)."""

    def __init__(self, code: str, what: str, do: str, line: int) -> None:
        super().__init__(code, what, do)
        self.line = line


@dataclass(frozen=True)
class Document:
    """value: plain dicts, lists and scalars. lines: path of each value -> its line, 1-based."""

    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of a value, or of its nearest parent that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read(text: str) -> Document:
    """Read one document of the subset; anything else is a `YamlFault`. Empty text gives the value None."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlFault("yaml-too-long", f"the file is longer than {MAX_BYTES // 1024} KiB", "split it into packs", 0)
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        raise YamlFault(
            "yaml-syntax", str(problem), "correct the YAML on this line", mark.line + 1 if mark else 0
        ) from None
    except (ValueError, UnicodeError):
        raise YamlFault(
            "yaml-syntax", "a character or a number that cannot be", "save the file as UTF-8 text", 0
        ) from None
    lines: dict[Path, int] = {}
    return Document(_convert(node, (), lines) if node is not None else None, lines)


def _check_events(text: str) -> None:
    """Refuse aliases, anchors, tags, depth and second documents before anything is built (parsing is iterative)."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise YamlFault("yaml-alias", "an anchor or alias", "write the value out", line)
        if getattr(event, "tag", None) is not None and not isinstance(event, yaml.DocumentStartEvent):
            raise YamlFault("yaml-tag", "a tag (`!…`)", "write a plain value", line)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlFault("yaml-documents", "a second document (`---`)", "keep one pack a file", line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise YamlFault("yaml-too-deep", f"more than {MAX_DEPTH} levels", "flatten this value", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _convert(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item, (*path, index), lines) for index, item in enumerate(node.value)]
    text: str = node.value
    return text if getattr(node, "style", None) in _QUOTED else _plain(text, lines[path])


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlFault("yaml-key", "a key that is no word", "use a plain word as the key", line)
        key: str = key_node.value
        if key == "<<":
            raise YamlFault("yaml-alias", "a merge key (`<<`)", "write the values out", line)
        if key in found:
            raise YamlFault("yaml-duplicate-key", f"the key {key!r} stands twice", "remove one of the two", line)
        lines[(*path, key)] = line
        found[key] = _convert(value_node, (*path, key), lines)
    return found


def _plain(text: str, line: int) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in ("true", "false", "yes", "no", "on", "off", ".inf", "-.inf", ".nan"):
        raise YamlFault("yaml-scalar", f"the ambiguous word {text}", 'write true or false, or quote it: "…"', line)
    return text
