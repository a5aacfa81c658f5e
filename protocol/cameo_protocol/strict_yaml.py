"""Reading our own public YAML strictly: text in, plain values or a clear error out. Pure; opens nothing.

Refused, because each has changed the meaning of a file behind its author's back: a key written twice, anchors,
aliases, merge keys, tags, several documents, deep nesting, and more bytes than a definition ever needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cameo_protocol.errors import OperatorError
from cameo_protocol.faults import all_faults, faults

MAX_BYTES = 1 << 20
MAX_DEPTH = 12
Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.CSafeLoader):
    """PyYAML's safe loader that also refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                raise yaml.MarkedYAMLError(problem="a key that is no plain word", problem_mark=key_node.start_mark)
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(problem="a key written twice", problem_mark=key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(raw: bytes, *, name: str) -> Any:
    """One YAML document as dicts, lists and scalars.

    name: what the error calls the text, such as "conf/facts/heart.yaml".
    Anything outside the subset above is `OperatorError("yaml-refused")` with the line.
    """
    if len(raw) > MAX_BYTES:
        raise _refused(name, f"{len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        text = raw.decode("utf-8")
        _check_events(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a CSafeLoader
    except UnicodeDecodeError:
        raise _refused(name, "not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _refused(name + line, error.problem or "not YAML") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        raise _refused(name, "not YAML: a character or a value in it that YAML does not allow") from None


def _check_events(text: str) -> None:
    """Walk the token stream before anything is built, so that neither an alias bomb nor depth costs memory."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        problem = ""
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "an anchor or alias"
        elif isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None):
            problem = "a tag"
        elif documents > 1:
            problem = "more than one document"
        elif depth > MAX_DEPTH:
            problem = f"more than {MAX_DEPTH} levels"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]


def parse_model(raw: bytes, model: type[Model], *, name: str) -> Model:
    """A YAML text as a checked, frozen model; the error names the first wrong key, its line, and how many there are."""
    value = parse_yaml(raw, name=name)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        line = _line_of(raw.decode(), all_faults(error, model)[0].place)
        raise OperatorError(
            "definition-invalid",
            what=f"{name}, line {line}: {faults(error, model)}",
            do=f"correct {name} and run the command again",
        ) from None


def _line_of(text: str, place: Sequence[int | str]) -> int:
    """The line, from 1, of a key or list entry, or of what stands around it."""
    node, line = yaml.compose(text, Loader=yaml.CSafeLoader), 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        else:
            break
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _refused(name: str, problem: str) -> OperatorError:
    return OperatorError(
        "yaml-refused", what=f"{name}: {problem}", do=f"write {name} as plain YAML: unique keys, no aliases or tags"
    )
