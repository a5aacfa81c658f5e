"""What `cameo-node data check` shows: rules and findings with hidden small counts; rows on request."""

from __future__ import annotations

from typing import Any

from cameo_client.data.findings import Finding, shown
from cameo_client.data.hospital import Inspection
from cameo_client.data.quality import RuleResult

MOST_ROWS = 50
EVERY = "all"


def known_rules(found: Inspection) -> tuple[str, ...]:
    """What `--rows` takes: quality rules and codes of findings that something fails, and all."""
    codes = (finding.code for finding in _findings(found))
    return tuple(dict.fromkeys((*(rule.id for rule in found.quality.rules), *codes, EVERY)))


def as_value(found: Inspection, rows: str) -> dict[str, Any]:
    """For `--json`. rows: the rule or code whose rows are told; empty: none."""
    return {
        "quality": found.quality.as_dict()
        | {
            "rules": [
                vars(rule) | _numbers(found.quality.rows_failing(rule.id), rows, rule.id)
                for rule in found.quality.rules
            ]
        },
        "findings": [
            {
                "code": finding.code,
                "table": finding.table,
                "column": finding.column,
                "problem": finding.problem,
                "count": shown(len(finding.rows)),
                "stops": finding in found.stopping,
                **_numbers(finding.rows, rows, finding.code),
            }
            for finding in _findings(found)
        ],
    }


def as_text(found: Inspection, rows: str) -> str:
    """For a person. rows: as for `as_value`, of which the first 50 are printed."""
    report = found.quality
    lines = [f"quality {report.score:.1f} of 100, {'ready' if report.ready else 'NOT ready: runs are declined'}"]
    lines += [f"  {fault}: forbids use at any score" for fault in report.hard]
    for rule in report.rules:
        lines += [f"  {_rule(rule)}", *_row_line(report.rows_failing(rule.id), rows, rule.id)]
    for finding in _findings(found):
        stops = "stops the load: " if finding in found.stopping else ""
        lines += [f"{stops}{finding.code}: {finding.text()}", *_row_line(finding.rows, rows, finding.code)]
    return "\n".join(lines if report.rules or report.hard or _findings(found) else [*lines, "nothing is wrong"])


def _findings(found: Inspection) -> tuple[Finding, ...]:
    return (*found.unusable, *found.doubtful, *found.notes)


def _rule(rule: RuleResult) -> str:
    return f"{rule.id}: {rule.rows} rows, {rule.cost:.1f} points"


def _numbers(numbers: tuple[int, ...], rows: str, name: str) -> dict[str, Any]:
    return {"row_numbers": list(numbers)} if rows in (name, EVERY) else {}


def _row_line(numbers: tuple[int, ...], rows: str, name: str) -> list[str]:
    if rows not in (name, EVERY) or not numbers:
        return []
    more = " …" if len(numbers) > MOST_ROWS else ""
    return [f"    rows {', '.join(map(str, numbers[:MOST_ROWS]))}{more}"]
