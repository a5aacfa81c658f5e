"""Tags out of the store: for people and systems inside the hospital. Consent is held against them at that moment.

Rows as a file or a PostgreSQL table, logged row by row under the name of who takes them, within quotas; or counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import polars as pl

from cameo_client.consent.store import ConsentStore
from cameo_client.data.database import Database
from cameo_client.tags.author import SCHEMA_VERSION
from cameo_client.tags.desk import enforce_consent, named
from cameo_client.tags.export import aggregate, sha256, to_csv, to_parquet
from cameo_client.tags.policy import TagPolicy
from cameo_client.tags.postgres import check_table, replace_table
from cameo_client.tags.store import StoredTag, TagStore
from cameo_protocol.errors import ExitCode, OperatorError


def export_rows(
    store: TagStore, consents: ConsentStore, policy: TagPolicy, person: str, now: datetime,
    *, form: Literal["csv", "parquet"],
) -> tuple[bytes, dict[str, Any]]:  # fmt: skip
    """The stored tags as a file's bytes. Above the day's quota: `OperatorError("export-quota")`, and none goes out."""
    rows = _rows(store, consents, policy, person, now)
    data = to_csv(rows) if form == "csv" else to_parquet(rows)
    return data, _logged(store, person, form, rows, sha256(data), now)


def export_table(
    store: TagStore, consents: ConsentStore, policy: TagPolicy, person: str, now: datetime,
    *, database: Database, table: str,
) -> dict[str, Any]:  # fmt: skip
    """The stored tags as a PostgreSQL table whose former rows go in the same transaction.

    So a tag that is gone from the store is gone from the table with the next export. The log is written first: a
    table that then cannot be written has been announced, never the other way round.
    """
    check_table(table)
    rows = _rows(store, consents, policy, person, now)
    answer = _logged(store, person, "postgresql", rows, sha256(to_csv(rows)), now)
    replace_table(database, table, rows)
    return {**answer, "table": table}


def export_counts(
    store: TagStore, consents: ConsentStore, policy: TagPolicy, person: str, now: datetime,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How many patients have each tag, safe to show: below 11 hidden, rounded to 5.

    groups: pseudonym -> group (such as the sex), to split each tag's count; a patient that it lacks counts as
    "not known".
    """
    named(person)
    enforce_consent(store, consents, policy, now)
    split: dict[str, Counter[str]] = {}
    for row in store.tags(now, state="stored"):
        group = groups.get(row.pseudonym, "not known") if groups is not None else "all"
        split.setdefault(row.tag, Counter())[group] += 1
    answer = {"schema_version": SCHEMA_VERSION, "command": "aggregate", "tags": aggregate(split)}
    store.log_export(person, "counts", (), sha256(json.dumps(answer, sort_keys=True).encode()), now)
    return answer


def groups_of(facts: pl.DataFrame, by: str, policy: TagPolicy) -> dict[str, str]:
    """Pseudonym -> group, for counts split by one of the facts that the fairness monitor looks at; nulls left out."""
    known = [name for name in policy.fairness.columns if name in facts.columns]
    if by not in known:
        raise OperatorError(
            "export-group",
            what="counts are split by one fact of the tag policy's fairness monitor",
            do=f"use --by with one of: {', '.join(known)}"
            if known
            else "leave --by out: these facts have none of them",
        )
    values = facts[by].cast(pl.String).to_list()
    return {name: group for name, group in zip(facts["pseudonym"].to_list(), values, strict=True) if group is not None}


def _rows(
    store: TagStore, consents: ConsentStore, policy: TagPolicy, person: str, now: datetime
) -> list[StoredTag]:  # fmt: skip
    """What may go out now: consent enforced, quotas kept."""
    named(person)
    enforce_consent(store, consents, policy, now)
    rows = store.tags(now, state="stored")
    limits = policy.exports
    for whose, limit, taken in (
        ("all people together", limits.rows_per_day, store.exported(now)),
        ("one person", limits.rows_per_person, store.exported(now, person)),
    ):
        if taken + len(rows) > limit:
            raise OperatorError(
                "export-quota",
                what=f"more than {limit} rows would leave the store within 24 hours by {whose}",
                do="export counts instead: cameo-node tags export --counts --as NAME, or wait a day",
                exit=ExitCode.POLICY,
            )
    return rows


def _logged(
    store: TagStore, person: str, kind: str, rows: list[StoredTag], digest: str, now: datetime
) -> dict[str, Any]:  # fmt: skip
    store.log_export(person, kind, rows, digest, now)
    return {"schema_version": SCHEMA_VERSION, "command": "export", "rows": len(rows), "sha256": digest}
