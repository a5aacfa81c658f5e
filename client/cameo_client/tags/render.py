"""The commands' answers as text for a terminal. What is printed is in the answer; nothing is looked up here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Answer = Mapping[str, Any]


def text(answer: Answer) -> str:
    """A command's answer (see author.py and desk.py) as lines of text, the verdict last."""
    return "\n".join(_RENDER[str(answer["command"])](answer))


def _lint(answer: Answer) -> list[str]:
    lines = [
        f"{item['file']}:{item['line']}: {item['level']} {item['code']}"
        f"{' [' + item['rule'] + ']' if item['rule'] else ''}: {item['what']}. {item['do']}."
        for item in answer["findings"]
    ]
    number = sum(item["level"] == "error" for item in answer["findings"])
    return [*lines, "no errors" if answer["ok"] else f"{number} error{'s' if number != 1 else ''}"]


def _test(answer: Answer) -> list[str]:
    failed = [case for case in answer["cases"] if not case["passed"]]
    lines = [
        f"{case['pack']}/{case['rule']} example {case['number']}: expected {case['expected']}, got {case['actual']}"
        for case in failed
    ]
    return [*lines, f"{len(answer['cases']) - len(failed)} of {len(answer['cases'])} examples right"]


def _tags(answer: Answer) -> list[str]:
    lines = [f"{'tag':<32} {'stored':>8} {'waiting':>8} {'blocked':>8}  reasons"]
    for tag in answer["tags"]:
        reasons = {**tag["waiting"], **tag["blocked"]}
        why = ", ".join(f"{code} {number}" for code, number in reasons.items())
        waiting, blocked = sum(tag["waiting"].values()), sum(tag["blocked"].values())
        lines.append(f"{tag['tag']:<32} {tag['stored']:>8} {waiting:>8} {blocked:>8}  {why}".rstrip())
    lines += [line for row in answer.get("reach", ()) for line in _reach(row)]
    lines += _which_models(answer)
    for row in answer.get("overlaps", ()):
        lines.append(f"overlap: {' and '.join(row['tags'])} go together in {row['together']:.0%} of those with either")
    for row in answer.get("disparity", ()):
        lines.append(f"groups: {row['tag']} by {row['fact']}: {row['lowest']} {row['lowest_rate']:.1%}"
                     f" to {row['highest']} {row['highest_rate']:.1%}")  # fmt: skip
    for name in answer["situations_not_observable"]:
        lines.append(f"note: these facts cannot show the sensitive situation {name}")
    lines += [f"fairness: {alert}" for alert in answer["fairness"]]
    if answer.get("evaluated", 0) < answer.get("patients", 0):
        lines.append(f"evaluated: {answer['evaluated']} of {answer['patients']} patients, those with a change")
    lines += [f"note: the pack {name} is not approved yet" for name in answer.get("not_approved", ())]
    changes = [f"{answer[key]} {key}" for key in ("added", "removed", "changed", "unchanged") if key in answer]
    return [*lines, ("would be: " if answer["command"] == "dry-run" else "") + ", ".join(changes)]


def _which_models(answer: Answer) -> list[str]:
    lines = []
    for one in answer.get("models", ()):
        lines.append(f"model: {one['name']} of run {one['run']}, id {one['model_id'][:12]}")
        for number, since in one["segments_changed"].items():
            lines.append(
                f"note: segment {number} has had another meaning since {since[:10]}; see the report of the run"
            )
    for one in answer.get("models_left_out", ()):
        lines.append(f"model left out: {one['name'] or 'unreadable'} of run {one['run']}: {one['what']}")
    return lines


def _reach(row: Answer) -> list[str]:
    line = (f"reach: {row['tag']} proposed {row['proposed']:.1%}, kept {row['coverage']:.1%},"
            f" unknown {row['unknown']:.1%}")  # fmt: skip
    if row["fires"] == "sometimes":
        return [line]
    why = "".join(f": no model {name} is installed" for name in row["without_model"])
    return [f"{line}; it {row['fires']} fires{why}"]


def _models(answer: Answer) -> list[str]:
    lines = [f"{'tag':<32} {'added':>8} {'removed':>8} {'unchanged':>9}  by the model update alone"]
    for row in answer["tags"]:
        why = ", ".join(f"{reason} {number}" for reason, number in row["why_removed"].items())
        lines.append(f"{row['tag']:<32} {row['added']:>8} {row['removed']:>8} {row['unchanged']:>9}  {why}".rstrip())
    for side in ("before", "after"):
        lines += [f"{side}: {line}" for line in _which_models(answer.get(side, {}))]
    return lines


def _access(answer: Answer) -> list[str]:
    lines = [f"{row['at'][:19]} {row['person']} {row['action']}: {row['tag']}" for row in answer["accesses"]]
    return [*lines, f"seen or taken {len(answer['accesses'])} times"]


def _log(answer: Answer) -> list[str]:
    lines = [
        f"{row['seq']:>6} {row['at'][:19]} {row['kind']}: "
        + ", ".join(f"{name} {value}" for name, value in row["body"].items())
        for row in answer["entries"]
    ]
    return [*lines, f"chain sound: {len(answer['entries'])} entries, head {answer['head']}"]


def _roles(answer: Answer) -> list[str]:
    lines = []
    for one in answer["people"]:
        owns = f" (stands for {', '.join(one['owns'])})" if one["owns"] else ""
        lines.append(f"{one['name']}: {', '.join(one['roles'])}{owns}")
    if answer["entered"] is None:
        lines += [f"  {action:<14} {', '.join(roles)}" for action, roles in answer["may"].items()]
    return lines


def _told(answer: Answer) -> list[str]:
    lines = [f"{answer['tag']} for {answer['pseudonym']}: {answer['verdict']}"]
    return [*lines, *_history(answer), f"in the patient's words: {answer['patient']}"]


def _history(answer: Answer) -> list[str]:
    return [
        f"  {row['at'][:19]} {row['change']} ({row['state']}{', ' + row['why'] if row['why'] else ''})"
        for row in answer["history"]
    ]


def _explain(answer: Answer) -> list[str]:
    lines = [f"{answer['tag']} for {answer['pseudonym']}: {answer['verdict']}", answer["staff"]]
    for word in ("true", "false", "unknown"):
        lines += [f"  {word:<8} {item}" for item in answer[word]]
    lines += [f"  guard {number:>2}  {name:<24} {state}" for number, name, state in answer["guards"]]
    if answer["verdict"] == "stored":
        lines.append(f"  message: {answer['contact']}")
    for one in answer["models"]:
        source = f"of run {one['run']}, id {one['model_id'][:12]}" if one["model_id"] else "is not there"
        lines.append(f"  model {one['name']} {source}")
    lines.append(f"  rule {answer['rule']} version {answer['rule_version']}, pack {answer['pack']}")
    return [*lines, *_history(answer), f"in the patient's words: {answer['patient']}"]


def _queue(answer: Answer) -> list[str]:
    lines = [
        f"{row['pseudonym']}  {row['tag']}  {row['reason']}  since {row['since'][:10]}  {'; '.join(row['because'])}"
        for row in answer["waiting"]
    ]
    return [*lines, f"{len(answer['waiting'])} waiting"]


def _diff(answer: Answer) -> list[str]:
    lines = [f"{answer['pack']} {answer['versions'][0]} -> {answer['versions'][1]}"]
    for change in answer["changes"]:
        lines.append(f"{change['change']} {change['rule']}")
        for field, (old, new) in change["fields"].items():
            lines += [f"  {field}:", f"    - {old}", f"    + {new}"]
        if not change.get("version_ok", True):
            lines.append("  error: the logic changed but not the version")
    return lines if len(lines) > 1 else [*lines, "no rule changed"]


def _audit(answer: Answer) -> list[str]:
    lines = [f"{answer['pack']} {answer['version']}  sha256 {answer['sha256']}  facts {answer['facts']}"]
    for rule in answer["rules"]:
        lines += [
            f"{rule['rule']} v{rule['version']} {rule['status']} -> {rule['tag']}",
            f"  when {rule['when']}" + (f"  unless {rule['unless']}" if rule["unless"] else ""),
            f"  {rule['purpose']} ({', '.join(rule['scopes'])}), {rule['sensitivity']}, review {rule['review']}",
            f"  owner {rule['owner']}, reviewer {rule['reviewer']}, evidence until {rule['review_by']}",
            *(f"  evidence: {item}" for item in rule["evidence"]),
        ]
    return lines


def _verdict(answer: Answer) -> list[str]:
    return [f"{answer['verdict']}: {answer['tag']} for {answer['pseudonym']}", *_next(answer)]


def _pack(answer: Answer) -> list[str]:
    return [f"in force: {answer['pack']} {answer['version']} ({answer['sha256'][:12]})", *_next(answer)]


def _export(answer: Answer) -> list[str]:
    return [f"{answer['rows']} rows, sha256 {answer['sha256']}"]


def _aggregate(answer: Answer) -> list[str]:
    lines = []
    for tag, cells in answer["tags"].items():
        lines.append(f"{tag}: " + ", ".join(f"{name} {'hidden' if n is None else n}" for name, n in cells.items()))
    return [*lines, "below 11 hidden, the rest rounded to 5"]


def _enforce(answer: Answer) -> list[str]:
    return [f"{answer['removed']} tags removed whose consent is gone"]


def _next(answer: Answer) -> list[str]:
    return [answer["do"]] if answer["do"] else []


_RENDER: Mapping[str, Callable[[Answer], list[str]]] = {
    "lint": _lint,
    "test": _test,
    "dry-run": _tags,
    "apply": _tags,
    "explain": _explain,
    "explain-to-patient": _told,
    "queue": _queue,
    "diff": _diff,
    "audit-pack": _audit,
    "approve": _verdict,
    "approve-pack": _pack,
    "export": _export,
    "aggregate": _aggregate,
    "enforce-consent": _enforce,
    "diff-models": _models,
    "access": _access,
    "log": _log,
    "roles": _roles,
}
