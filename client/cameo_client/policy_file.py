"""policy.yaml: read strictly, with line numbers, and with the one part of it that `accept` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from cameo_client.home import read_file
from cameo_protocol.errors import OperatorError
from cameo_protocol.faults import all_faults, faults
from cameo_protocol.policy import Policy, Refusal

MAX_BYTES = 1 << 16
MAX_DEPTH = 8
BEGIN = "# --- approved: begin ---"
END = "# --- approved: end ---"


@dataclass(frozen=True)
class PolicyFile:
    """A policy and where its fields stand. lines: field such as "floors.sigma" -> line number from 1."""

    path: Path
    policy: Policy
    lines: Mapping[str, int]

    def line(self, field: str) -> int:
        """The line of a field; of the nearest field around it when the file leaves it to its default; else 1."""
        return _line(self.lines, field)

    def explain(self, refusals: Sequence[Refusal]) -> list[str]:
        """One text a refusal: where the policy says so, and what it says."""
        return [f"{self.path.name}:{self.line(r.field)} {r.field}: {r.what} ({r.code})" for r in refusals]


def load_policy(path: Path) -> PolicyFile:
    """Read policy.yaml; anything but one valid policy is an `OperatorError` that names the line."""
    policy, lines = parse_policy(read_file(path, at_most=MAX_BYTES), path.name)
    return PolicyFile(path, policy, lines)


def parse_policy(raw: bytes, name: str = "policy.yaml") -> tuple[Policy, dict[str, int]]:
    """The policy in the bytes of a YAML file, and the line of each of its fields."""
    lines: dict[str, int] = {}
    try:
        text = raw.decode("utf-8")
        _refuse_anchors(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = _value(node, "", lines)
    except _Fault as fault:
        raise _invalid(name, fault.line, fault.what) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _invalid(name, mark.line + 1 if mark else 1, error.problem or "no YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        raise _invalid(name, 1, "no YAML") from None
    try:
        return Policy.model_validate(values), lines
    except ValidationError as error:
        field = all_faults(error, Policy)[0].key
        raise _invalid(name, _line(lines, field), faults(error, Policy)) from None


def approve(text: str, coordinator: str, peers: Mapping[str, str]) -> str:
    """The policy's text with its approved lines replaced; everything else stays as the officer wrote it.

    coordinator, and the values of peers: fingerprints. A text without exactly one pair of marks is refused.
    """
    rows = text.splitlines(keepends=True)
    marks = [[i for i, row in enumerate(rows) if row.strip() == mark] for mark in (BEGIN, END)]
    if [len(found) for found in marks] != [1, 1] or marks[0][0] > marks[1][0]:
        raise OperatorError(
            "policy-marks",
            what=f"policy.yaml has not exactly one pair of the lines {BEGIN!r} and {END!r}",
            do="put the two lines around coordinator: and peers: again, then run cameo-node accept",
        )
    # Quoted: YAML would read a hospital called "no" as false.
    approved = [f"coordinator: {json.dumps(coordinator)}\n", "peers:\n" if peers else "peers: {}\n"]
    approved += [f"  {json.dumps(name)}: {json.dumps(print_)}\n" for name, print_ in sorted(peers.items())]
    return "".join([*rows[: marks[0][0] + 1], *approved, *rows[marks[1][0] :]])


class _Fault(Exception):
    """Something that YAML allows and a policy does not, with its line."""

    def __init__(self, at: yaml.Node | yaml.Event, what: str) -> None:
        super().__init__(what)
        self.line = at.start_mark.line + 1 if at.start_mark else 1
        self.what = what


def _line(lines: Mapping[str, int], field: str) -> int:
    while field:
        if field in lines:
            return lines[field]
        field = field.rpartition(".")[0]
    return 1


def _refuse_anchors(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Fault(event, "anchors and aliases are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _Fault(event, "nested too deep")


def _value(node: yaml.Node | None, path: str, lines: dict[str, int]) -> object:
    """Plain values of a node tree; records the line of every mapping key; refuses a key that comes twice."""
    if isinstance(node, yaml.MappingNode):
        values: dict[str, object] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Fault(key, "a key is no text")
            if key.value in values:
                raise _Fault(key, f"{key.value} comes twice")
            field = f"{path}.{key.value}" if path else key.value
            lines[field] = key.start_mark.line + 1
            values[key.value] = _value(item, field, lines)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, path, lines) for item in node.value]
    if isinstance(node, yaml.ScalarNode):
        return yaml.SafeLoader("").construct_object(node)
    return None


def _invalid(name: str, line: int, what: str) -> OperatorError:
    return OperatorError(
        "policy-invalid",
        what=f"{name}:{line}: {what}",
        do="correct that line, then run: cameo-node policy check (fields: docs/operators.md#policy)",
    )
