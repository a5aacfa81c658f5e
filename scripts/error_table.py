"""Writes docs/errors.md: every error code of the product, read from the source. Run it when a code was added.

python scripts/error_table.py            rewrite docs/errors.md
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("protocol", "models", "server", "client", "scripts/cameo_lab")
KINDS = {
    "OperatorError": "operator",
    "Finding": "operator",
    "BadResource": "operator",
    "Refusal": "policy",
    "Reject": "peer",
    "PeerMisbehaved": "peer",
    "PartyFault": "peer",
    "Bug": "bug",
}
# Results that carry a code without being raised: (kind, position of the code).
RESULTS = {"Void": ("void", 1), "NotOpened": ("void", 0)}
# Tables of codes in the source: their name, and what each of their codes means, … being the key.
LISTED = {"_SAME": ("peer", "its advert has another … than our plan")}
# Codes that are not written as the first argument of a constructor: where they come from, and what they mean.
SPOKEN = {
    ("operator", "unexpected"): (
        "1",
        "an exception that nobody foresaw",
        "send the report that is named to the makers",
    ),
    ("peer", "no-answer"): ("7", "a hospital did not answer within the stage's deadline", ""),
    ("peer", "wrong-answer"): ("7", "a hospital answered with another stage's message", ""),
    ("peer", "unreadable"): ("7", "a hospital answered with an error that is none of ours", ""),
    ("peer", "failed-local"): ("7", "the hospital failed; its own log says why", "read the log of that node"),
    ("peer", "out-of-order"): ("7", "a message that does not fit the stage the hospital is at", ""),
    ("void", "uploads-too-few"): (
        "",
        "fewer than max(t, 3) masked vectors came",
        "see who was lost, call them",
    ),
    ("void", "acks-too-few"): ("", "fewer than t hospitals acknowledged the survivor set", "the same"),
    ("void", "reveals-too-few"): ("", "fewer than t hospitals revealed their shares", "the same"),
    ("void", "shares-wrong"): (
        "",
        "the shares do not open what their dealers had committed to; nothing was summed",
        "if a hospital is blamed, call it: its name is a hint, not a proof",
    ),
    ("void", "edges-wrong"): (
        "",
        "a lost hospital had wrapped other edge keys than it published; nothing was summed",
        "call the hospital that is blamed",
    ),
    ("void", "record-damaged"): (
        "",
        "what the coordinator had written of the round before it was restarted does not read back",
        "check the disk of the coordinator's home",
    ),
    ("operator", "data-impossible"): ("6", "rows hold a value outside the plausible range", "see --rows"),
    ("operator", "data-required-missing"): ("6", "rows lack a fact that may not be missing", "see --rows"),
    ("operator", "server-app-failed"): ("7", "the run's process failed", "read failure.txt in the run's folder"),
    ("operator", "server-app-died"): (
        "7",
        "the run's process ended again and again before the next round did",
        "read logs/ of the coordinator's home, then: cameo run --resume RUN",
    ),
}
HEAD = """# Error codes

Every message of `cameo` and `cameo-node` names one code, what happened, who must act, and the next command. Codes are
stable: search for them here, in logs and in `events.jsonl`. `…` stands for what the message fills in. This page is
written by `scripts/error_table.py`; a test holds it against the source.

| exit | means |
|---|---|
| 0 | done |
| 1 | our fault (a bug) |
| 2 | usage or configuration |
| 3 | data quality below the gate |
| 4 | refused by a policy: budget, cohort, purpose |
| 5 | authentication, keys, TLS |
| 6 | data source |
| 7 | another party, or a round, failed; a run was stopped |
| 130 | interrupted |

What rule packs may get wrong has its own table in [tags.md](tags.md).
"""
SECTIONS = {
    "operator": "## The operator can fix it\n\nThe command ends with the exit code shown.\n",
    "policy": "## A plan against the officer's policy\n\nShown by `cameo-node policy check` with the line; exit 4. The "
    "coordinator learns only\n`declined-policy`; the node's log and its audit log name the code. `other-definitions` "
    "there: the plan's catalogue, label\nor groups are not those of this hospital's source, so another mapping or "
    "data set is asked for.\n",
    "peer": "## The other side sent something it must not\n\nThe message is refused and the state before it is kept. "
    "Seen in a node's log and, for hospitals that\nwere lost, in a run's events. Exit 7.\n",
    "void": "## A round without a sum\n\nA result and not an error: the round gave no number, is charged, and is never "
    "asked for again; the run goes on\nwith a spare round. Seen in `events.jsonl` as `void`.\n",
    "bug": "## Our own fault\n\nAn invariant does not hold; please report it. Exit 1.\n",
}
COLUMNS = {
    "operator": ("code", "exit", "what", "next"),
    "policy": ("code", "line", "refusal"),
    "peer": ("code", "what"),
    "void": ("code", "what", "next"),
    "bug": ("code", "what"),
}
EXITS = {"QUALITY": "3", "POLICY": "4", "AUTH": "5", "DATA": "6", "PEER": "7", "BUG": "1"}


@dataclass
class Code:
    """What the source says about one code of one kind."""

    exits: set[str] = field(default_factory=set)
    whats: list[str] = field(default_factory=list)
    dos: list[str] = field(default_factory=list)


def collect(root: Path = ROOT) -> dict[tuple[str, str], Code]:
    """(kind, code) -> what is said there, over all rooms of the product."""
    trees = [ast.parse(path.read_text()) for room in ROOMS for path in sorted((root / room).rglob("*.py"))]
    makers = {**{name: (kind, 0) for name, kind in KINDS.items()}, **RESULTS, **_helpers(trees)}
    found: dict[tuple[str, str], Code] = {
        key: Code({exit_code}, [what], [do] if do else []) for key, (exit_code, what, do) in SPOKEN.items()
    }
    for tree in trees:
        for kind, code, what in _listed(tree):
            found[kind, code] = Code(whats=[what])
        for code, what in _faults(tree):
            entry = found.setdefault(("operator", code), Code())
            entry.exits.add("6")
            entry.whats.append(f"rows {what}")
        said = _assigned(tree)
        for call in _calls(tree):
            maker = makers.get(_name(call))
            code = _text(call.args[maker[1]]) if maker and len(call.args) > maker[1] else ""
            if maker is None or not re.match(r"[a-z][a-z0-9-]*[a-z0-9]($|:)", code):
                continue
            entry = found.setdefault((maker[0], code.partition(":")[0]), Code())
            _add(entry, call, maker[1], said)
    return found


def _listed(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(kind, code, what) of the codes in tables such as `_SAME = {"run_id": "run-foreign", …}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and isinstance(node.targets[0], ast.Name):
            kind, what = LISTED.get(node.targets[0].id, ("", ""))
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if kind:
                    yield kind, _text(value), what.replace("…", _text(key).replace("_", " "))


def _faults(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(code, problem) of faults of data that are written as a row: ("data-type", "hold no number", …)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple) and len(node.elts) > 2 and re.fullmatch(r"data-[a-z-]+", _text(node.elts[0])):
            yield _text(node.elts[0]), _text(node.elts[1])


def _helpers(trees: list[ast.Module]) -> dict[str, tuple[str, int]]:
    """Functions that pass their parameter `code` on to an error: name -> (kind, position of `code`)."""
    helpers = {}
    for tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            names = [argument.arg for argument in node.args.args]
            for call in _calls(node):
                kind = KINDS.get(_name(call))
                if kind and "code" in names and call.args and _is_name(call.args[0], "code"):
                    helpers[node.name] = (kind, names.index("code") - (names[0] == "self"))
    return helpers


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _text(node: ast.expr | None) -> str:
    """A text as it is written, with … for what is filled in; "" for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def _assigned(tree: ast.Module) -> list[tuple[int, str, str]]:
    """(line, name, text) of every text that is first given a name, such as `what = f"…"`."""
    return [
        (node.lineno, node.targets[0].id, _text(node.value))
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _text(node.value)
    ]


def _add(entry: Code, call: ast.Call, position: int, said: list[tuple[int, str, str]]) -> None:
    def text(node: ast.expr | None) -> str:
        if isinstance(node, ast.Name):
            before = [(line, found) for line, name, found in said if name == node.id and line < call.lineno]
            return max(before)[1] if before else ""
        return _text(node)

    named = {keyword.arg: keyword.value for keyword in call.keywords}
    after = call.args[position + 1 :]
    if _name(call) == "Finding":  # code, table, column, problem, rows
        after = after[2:3]
    what = text(named.get("what") or (after[0] if after else None))
    do = text(named.get("do") or (after[1] if len(after) > 1 else None))
    if what and what not in entry.whats:
        entry.whats.append(what)
    if do and do not in entry.dos:
        entry.dos.append(do)
    exit_code = named.get("exit")
    if isinstance(exit_code, ast.Attribute):
        entry.exits.add(EXITS.get(exit_code.attr, "2"))
    elif _name(call) == "OperatorError":
        entry.exits.add("2")
    elif _name(call) in ("bad_file", "Finding", "BadResource"):
        entry.exits.add("6")


def table(found: dict[tuple[str, str], Code]) -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, intro in SECTIONS.items():
        heads = COLUMNS[kind]
        parts += [intro, f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}"]
        for code, entry in sorted(((c, e) for (of, c), e in found.items() if of == kind), key=lambda row: row[0]):
            what, do, exits = _cell(entry.whats), _cell(entry.dos), " ".join(sorted(entry.exits)) or "2"
            # A Refusal says code, field, what.
            cells = {"code": f"`{code}`", "exit": exits, "what": what, "next": do, "line": what, "refusal": do}
            parts.append(f"| {' | '.join(cells[head] for head in heads)} |")
        parts.append("")
    return "\n".join(parts)


def _cell(texts: list[str]) -> str:
    return "; or: ".join(texts[:2]).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def main() -> None:
    """Write the page."""
    (ROOT / "docs" / "errors.md").write_text(table(collect()))


if __name__ == "__main__":
    main()
