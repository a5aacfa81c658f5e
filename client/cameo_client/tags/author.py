"""Commands for people who write packs: lint, test, diff, audit-pack. They read packs and the catalogue, no patient."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from cameo_client.tags.bind import BoundRule
from cameo_client.tags.casebook import run_cases
from cameo_client.tags.finding import Finding, errors, refuse
from cameo_client.tags.lint import bind_pack
from cameo_client.tags.lint import lint as lint_text
from cameo_client.tags.pack import Pack, load_pack, read_text
from cameo_client.tags.schema import Schema, schema_of
from cameo_client.tags.store import TagStore
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Catalogue

SCHEMA_VERSION = 1


def lint(paths: Sequence[Path], catalogue: Catalogue, *, today: date, store: TagStore | None = None) -> dict[str, Any]:
    """Check packs; with a store also against the packs in force. "ok" is whether there is no error."""
    schema = schema_of(catalogue)
    found: list[Finding] = []
    for path in paths:
        text = read_text(path)
        pack, _, findings = lint_text(text, str(path), schema, today=today)
        previous = store.pack_in_force(pack.pack.id) if store and pack else None
        if previous is not None:
            _, _, findings = lint_text(text, str(path), schema, today=today, previous=previous)
        found += findings
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "lint",
        "ok": not errors(found),
        "files": [str(path) for path in paths],
        "findings": [finding.as_dict() for finding in found],
    }


def test(paths: Sequence[Path], catalogue: Catalogue, *, today: date) -> dict[str, Any]:
    """Run the examples of packs that lint without error."""
    schema = schema_of(catalogue)
    rows: list[dict[str, Any]] = []
    for path in paths:
        pack, rules = bind_pack(read_text(path), str(path), schema, today=today)
        rows += [{"pack": pack.pack.id, "passed": result.passed, **vars(result)} for result in run_cases(rules, schema)]
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "test",
        "ok": all(row["passed"] for row in rows),
        "cases": rows,
    }


def load_rules(
    paths: Sequence[Path], catalogue: Catalogue, *, today: date
) -> tuple[Schema, list[Pack], list[BoundRule]]:
    """The schema, the packs and their rules, ready to evaluate; a pack with an error is an `OperatorError`."""
    schema = schema_of(catalogue)
    packs: list[Pack] = []
    rules: list[BoundRule] = []
    for path in paths:
        pack, bound = bind_pack(read_text(path), str(path), schema, today=today)
        packs.append(pack)
        rules += bound
    return schema, packs, rules


def checked_pack(path: Path, catalogue: Catalogue, store: TagStore, *, today: date) -> Pack:
    """A pack that may be put in force: no lint error, also against the one in force, and every example right."""
    schema, text = schema_of(catalogue), read_text(path)
    pack, rules, findings = lint_text(text, str(path), schema, today=today)
    refuse(findings)
    assert pack is not None
    previous = store.pack_in_force(pack.pack.id)
    if previous is not None:
        refuse(lint_text(text, str(path), schema, today=today, previous=previous)[2])
    failed = [result for result in run_cases(rules, schema) if not result.passed]
    if failed:
        bad = failed[0]
        raise OperatorError(
            "tag-test-failed",
            what=f"example {bad.number} of {bad.rule} expects {bad.expected}, the rule says {bad.actual}",
            do=f"run: cameo-node tags test {path}",
            exit=ExitCode.USAGE,
        )
    return pack


def diff(old: Path, new: Path) -> dict[str, Any]:
    """What changed between two versions of a pack, rule by rule, and whether the versions say so."""
    before, after = load_pack(old), load_pack(new)
    changes: list[dict[str, Any]] = []
    for rule_id in dict.fromkeys([rule.id for rule in (*before.rules, *after.rules)]):
        one, two = before.rule(rule_id), after.rule(rule_id)
        if one is None or two is None:
            changes.append({"rule": rule_id, "change": "added" if one is None else "removed", "fields": {}})
        elif one != two:
            first, second = one.model_dump(mode="json"), two.model_dump(mode="json")
            fields = {key: [first[key], second[key]] for key in first if first[key] != second[key]}
            bumped = two.version > one.version or one.logic_sha256() == two.logic_sha256()
            changes.append({"rule": rule_id, "change": "changed", "fields": fields, "version_ok": bumped})
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "diff",
        "ok": all(change.get("version_ok", True) for change in changes),
        "pack": after.pack.id,
        "versions": [before.pack.version, after.pack.version],
        "sha256": [before.sha256(), after.sha256()],
        "changes": changes,
    }


def audit_pack(path: Path, catalogue: Catalogue, *, today: date) -> dict[str, Any]:
    """Everything an auditor asks of a pack: who owns what, on which evidence, for which purpose, under which review."""
    schema = schema_of(catalogue)
    text = read_text(path)
    pack, rules = bind_pack(text, str(path), schema, today=today)
    results = run_cases(rules, schema)
    rows = [
        {
            "rule": item.rule.id,
            "version": item.rule.version,
            "status": item.rule.status,
            "tag": item.rule.tag.name,
            "when": item.rule.when,
            "unless": item.rule.unless,
            "columns": list(item.columns),
            "purpose": item.rule.purpose,
            "scopes": list(item.rule.scopes()),
            "sensitivity": item.sensitivity,
            "review": item.rule.review,
            "owner": item.rule.owner,
            "reviewer": item.rule.reviewer,
            "evidence": list(item.rule.evidence),
            "review_by": item.rule.review_by.isoformat(),
            "logic_sha256": item.rule.logic_sha256(),
            "examples_passed": all(result.passed for result in results if result.rule == item.rule.id),
        }
        for item in rules
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "audit-pack",
        "ok": all(row["examples_passed"] for row in rows),
        "pack": pack.pack.id,
        "version": pack.pack.version,
        "sha256": pack.sha256(),
        "file_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "facts": schema.id,
        "facts_sha256": catalogue.sha256(),
        "rules": rows,
    }
