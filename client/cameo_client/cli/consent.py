"""`cameo-node consent`: the patients' decisions, and the report of uses that they are owed."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cameo_client.cli.options import AsJson, Home, require_pseudonym
from cameo_protocol.console import emit, new_app

if TYPE_CHECKING:
    from cameo_client.consent.store import ConsentStore

app = new_app("Patients' decisions about the use of their data.")
Pseudonym = Annotated[str, typer.Argument(metavar="PSEUDONYM", hidden=True)]
FICTIONAL = "MADE UP: decisions in this store were invented for a demonstration"


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)], home: Home = None, as_json: AsJson = False
) -> None:
    """Add the decisions in FILE: all of them, or none.

    FILE is CSV (.csv, see docs/operators.md) or FHIR R4 Consent, one resource a line (.ndjson). Exit code 6 when a line
    of it cannot be read; the line is named.

    \b
    Example:
      cameo-node consent import consents.csv
    """
    from cameo_client.audit import note
    from cameo_client.consent import exchange, fhir
    from cameo_client.home import load_pseudonym_key, open_home

    place = open_home(home)
    if file.suffix == ".ndjson":
        records = fhir.read_ndjson(file)
    else:
        records = exchange.read_csv(file, load_pseudonym_key(place.pseudonym_key))
    with _store(home) as store:
        count = store.add(records, now=datetime.now(UTC))
    removed = _enforce(place.tags, home)
    note(place, "consent-imported", about=file.name)
    emit({"imported": count, "tags_removed": removed}, as_json, lambda: f"{count} decisions imported")


@app.command()
def export(
    form: Annotated[Literal["csv", "fhir"], typer.Option("--format", help="csv, or fhir (NDJSON).")] = "csv",
    home: Home = None,
) -> None:
    """Write every decision to standard output, under pseudonyms.

    \b
    Example:
      cameo-node consent export --format fhir > consents.ndjson
    """
    from cameo_client.audit import note
    from cameo_client.consent import exchange, fhir
    from cameo_client.home import open_home

    note(open_home(home), "consent-exported", about=form)
    with _store(home) as store:
        if form == "fhir":
            fhir.write_ndjson(store.records(), sys.stdout)
        else:
            exchange.write_csv(store.records(), sys.stdout)


@app.command()
def counts(home: Home = None, as_json: AsJson = False) -> None:
    """How many patients decided what, by scope.

    Counts below 11 are hidden.

    \b
    Example:
      cameo-node consent counts
    """
    from cameo_client.consent.records import SCOPES
    from cameo_client.data.findings import shown

    with _store(home) as store:
        now, fictional = datetime.now(UTC), store.fictional()
        table = {scope: {key: shown(n) for key, n in store.counts(scope, now).items()} for scope in SCOPES}

    def text() -> str:
        rows = [f"{'':<18}" + "".join(f"{key:>18}" for key in next(iter(table.values())))]
        rows += [f"{scope:<18}" + "".join(f"{n:>18}" for n in row.values()) for scope, row in table.items()]
        return "\n".join([*([FICTIONAL] if fictional else []), *rows])

    emit({"fictional": fictional, "scopes": table}, as_json, text)


@app.command()
def report(pseudonym: Pseudonym, home: Home = None, as_json: AsJson = False) -> None:
    """Every decision of PSEUDONYM, and every use of the data.

    This is the report that a patient may ask for. `cameo-node data pseudonym` finds the pseudonym.

    \b
    Example:
      cameo-node consent report 0f3a…
    """
    from cameo_client.consent.exchange import iso

    require_pseudonym(pseudonym)
    with _store(home) as store:
        found = store.report(pseudonym)
    decisions = [
        {"at": iso(r.at), "scope": r.scope, "status": r.status, "method": r.method, "notice": r.notice_version,
         "expires": iso(r.expires) if r.expires else None}
        for r in found.decisions
    ]  # fmt: skip
    uses = [
        {"at": iso(u.at), "scope": u.scope, "action": u.action, "reference": u.reference, "ground": u.ground}
        for u in found.uses
    ]

    def text() -> str:
        rows = [FICTIONAL] if found.fictional else []
        rows += [f"decisions of {pseudonym}:", *(_row(entry) for entry in decisions)] if decisions else ["no decision"]
        rows += ["uses:", *(_row(entry) for entry in uses)] if uses else ["no use"]
        return "\n".join(rows)

    emit({"pseudonym": pseudonym, "fictional": found.fictional, "decisions": decisions, "uses": uses}, as_json, text)


@app.command()
def withdraw(
    pseudonym: Pseudonym,
    scope: Annotated[str, typer.Option("--scope", metavar="SCOPE", help="One of the scopes below, or all.")],
    method: Annotated[str, typer.Option("--method", metavar="HOW", help="paper, electronic or verbal.")] = "verbal",
    anyway: Annotated[bool, typer.Option("--anyway", help="Also for a pseudonym that nobody here has yet.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Note that the patient PSEUDONYM withdraws or objects.

    Tags that need the consent go at once; training leaves the patient out from the next round on. A model that was
    published before cannot be untrained. A pseudonym that neither the consents nor the data source know is refused,
    because a typing error would leave the patient in.

    Scopes: care, health_education, service_reminder, marketing, model_training, research.

    \b
    Example:
      cameo-node consent withdraw 0f3a… --scope model_training
    """
    from cameo_client.audit import note
    from cameo_client.consent.records import METHODS, NOTICE, SCOPES, ConsentRecord
    from cameo_client.home import open_home
    from cameo_protocol.errors import OperatorError

    require_pseudonym(pseudonym)
    scopes, methods = [known for known in SCOPES if scope in (known, "all")], [m for m in METHODS if m != "made_up"]
    if not scopes:
        raise OperatorError("option-invalid", what="no such --scope", do=f"give one of: all, {', '.join(SCOPES)}")
    if method not in methods:
        raise OperatorError("option-invalid", what="no such --method", do=f"give one of: {', '.join(methods)}")
    if not anyway:
        _require_known(home, pseudonym)
    now = datetime.now(UTC)
    records = [
        ConsentRecord(
            pseudonym=pseudonym, scope=each, status="withdrawn", notice_version=NOTICE.version,
            notice_sha256=NOTICE.sha256, method=next(m for m in METHODS if m == method), at=now,
        )
        for each in scopes
    ]  # fmt: skip
    with _store(home) as store:
        store.add(records, now=now)
    removed = _enforce(open_home(home).tags, home)
    note(open_home(home), "consent-withdrawn", about=" ".join(scopes))
    emit(
        {"pseudonym": pseudonym, "withdrawn": scopes, "tags_removed": removed},
        as_json,
        lambda: f"withdrawn: {', '.join(scopes)}; {removed} tags removed",
    )


@app.command()
def purge(
    before: Annotated[
        str, typer.Option("--before", metavar="YYYY-MM-DD", help="End of the retention term. Default: nothing goes.")
    ] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Delete superseded decisions and uses before a day.

    The latest decision of every patient stays. What was purged is logged in the store; without --before, nothing is
    purged and the log is shown.

    \b
    Example:
      cameo-node consent purge --before 2020-01-01
    """
    from cameo_client.audit import note
    from cameo_client.consent.exchange import iso
    from cameo_client.home import open_home

    with _store(home) as store:
        decisions, uses = store.purge(_day(before), now=datetime.now(UTC)) if before else (0, 0)
        log = [vars(one) | {"at": iso(one.at), "before": iso(one.before)} for one in store.purges()]
    if before:
        note(open_home(home), "consent-purged", about=before)

    def text() -> str:
        if before:
            return f"purged: {decisions} decisions, {uses} uses"
        return "\n".join(_row(one) for one in log) or "nothing was ever purged"

    emit({"decisions": decisions, "uses": uses, "log": log}, as_json, text)


def _day(text: str) -> datetime:
    from cameo_protocol.errors import OperatorError

    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise OperatorError(
            "option-invalid", what="no day YYYY-MM-DD", do="for instance: --before 2020-01-01"
        ) from None


def _store(home: Path | None) -> AbstractContextManager[ConsentStore]:
    from cameo_client.consent.store import ConsentStore
    from cameo_client.home import open_home

    return ConsentStore.open(open_home(home).consent)


def _enforce(tags: Path, home: Path | None) -> int:
    """Remove the tags that have no consent any more; none where no tag was ever written."""
    from cameo_client.cli.tags import enforce

    return int(enforce(home)["removed"]) if tags.exists() else 0


def _require_known(home: Path | None, pseudonym: str) -> None:
    """Refuse a pseudonym without a decision, a use, or a patient in the source (which is read only if need be)."""
    from cameo_client.home import open_home
    from cameo_client.source import read
    from cameo_protocol.errors import CameoError, OperatorError

    with _store(home) as store:
        found = store.report(pseudonym)
    if found.decisions or found.uses:
        return
    what = "nobody in the consents or in the data source has that pseudonym"
    try:
        _, data = read(open_home(home), today=datetime.now(UTC).date())
        if pseudonym in data.facts["pseudonym"]:
            return
    except CameoError as error:
        what = f"nobody in the consents has that pseudonym, and the data source cannot be read ({error.code})"
    raise OperatorError(
        "pseudonym-unknown",
        what=f"{what}; nothing was written",
        do="find it from the person id: cameo-node data pseudonym; or write it down all the same with --anyway",
    )


def _row(entry: dict[str, Any]) -> str:
    return "  " + "  ".join(str(value) for value in entry.values() if value is not None)
