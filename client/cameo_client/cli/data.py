"""`cameo-node data`: what the data source holds, and what keeps it from being used."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, new_app

app = new_app("The hospital's data source. Counts below 11 are hidden.")
MOST_ROWS = 50


@app.command()
def describe(home: Home = None, as_json: AsJson = False) -> None:
    """How the source is read, and its data quality.

    \b
    Example:
      cameo-node data describe
    """
    from cameo_client.data.describe import describe as lines
    from cameo_client.home import load_config, open_home
    from cameo_client.source import read

    place = open_home(home)
    config = load_config(place).data
    found, data = read(place, today=datetime.now(UTC).date())
    mapping, catalogue, labels = found.source.mapping, found.catalogue, found.labels
    report, facts = data.quality.as_dict(), lines(data, catalogue)
    value = {
        "data_set": data.dataset,
        "kind": config.kind,
        "path": config.path,
        "catalogue": catalogue.id,
        "catalogue_sha256": catalogue.sha256(),
        "facts": [vars(fact) for fact in facts],
        "labels": [label.id for label in labels],
        "snapshot": str(data.snapshot) if data.snapshot else None,
        "synthetic": data.synthetic,
        "quality": report,
    }
    rows = [
        f"data set   {data.dataset}{'  (SYNTHETIC: no real patient)' if data.synthetic else ''}",
        f"source     {config.kind}, {config.path}",
        f"catalogue  {catalogue.id} {catalogue.version}, {len(mapping.facts)} of {len(catalogue.facts)} facts",
        f"labels     {', '.join(label.id for label in labels) or 'none'}",
        f"snapshot   {data.snapshot or 'not stated'}",
        f"patients   {report['patients']}",
        f"quality    {report['score']:.1f} of 100, {'ready' if report['ready'] else 'NOT ready: runs are declined'}",
        *(f"  {rule.id}: {rule.rows} rows, {rule.cost:.1f} points" for rule in data.quality.rules),
        "facts      (known for about … % of patients)",
        *(f"  {fact.known:>3} %  {fact.name:<28} {fact.unit or fact.type:<12} {fact.meaning}" for fact in facts),
    ]
    emit(value, as_json, lambda: "\n".join(rows))


@app.command()
def check(
    rows: Annotated[bool, typer.Option("--rows", help="Also the row numbers. They may point at patients.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Find what cannot be read or cannot be true.

    Exit code 6 when there is such a cell, 3 when the quality is below 90.

    \b
    Example:
      cameo-node data check --rows
    """
    from cameo_client.data.findings import shown
    from cameo_client.data.hospital import check as find
    from cameo_client.data.hospital import load
    from cameo_client.home import load_pseudonym_key, open_home
    from cameo_client.source import source_of
    from cameo_protocol.errors import ExitCode

    place = open_home(home)
    named = source_of(place)
    found = find(named.source, named.catalogue, named.labels)

    def entry(finding: Any) -> dict[str, Any]:
        told = {"code": finding.code, "table": finding.table, "column": finding.column, "problem": finding.problem}
        return {**told, "count": shown(len(finding.rows)), **({"rows": list(finding.rows)} if rows else {})}

    def text() -> str:
        lines = []
        for finding in found:
            lines.append(finding.text())
            if rows:
                more = " …" if len(finding.rows) > MOST_ROWS else ""
                lines.append(f"  rows {', '.join(map(str, finding.rows[:MOST_ROWS]))}{more}")
        return "\n".join(lines) or "every cell can be read and is plausible"

    emit({"findings": [entry(finding) for finding in found]}, as_json, text)
    if found and named.source.mapping.impossible == "refuse":
        raise typer.Exit(int(ExitCode.DATA))
    key = load_pseudonym_key(place.pseudonym_key)
    load(named.source, named.catalogue, named.labels, key, today=datetime.now(UTC).date()).quality.require()


@app.command()
def mapping(name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)]) -> None:
    """Print a shipped mapping, to make your own from.

    NAME is one of conf/sources: cardiometabolic-omop, cardiometabolic-fhir, cardiometabolic, heart.

    \b
    Example:
      cameo-node data mapping cardiometabolic-omop > our-cdm.yaml
    """
    from cameo_client.data.catalogue import mapping_text

    sys.stdout.write(mapping_text(name))


@app.command()
def pseudonym(home: Home = None, as_json: AsJson = False) -> None:
    """The pseudonym of the person id on standard input.

    Standard input, because a command line is kept in the shell's history.

    \b
    Example:
      cameo-node data pseudonym < id.txt
    """
    from cameo_client.data.pseudonyms import pseudonym as name
    from cameo_client.home import load_pseudonym_key, open_home
    from cameo_protocol.errors import OperatorError

    person = sys.stdin.readline().strip()
    if not person:
        raise OperatorError("person-id-missing", what="no person id on standard input", do="give it on one line")
    found = name(load_pseudonym_key(open_home(home).pseudonym_key), person)
    emit({"pseudonym": found}, as_json, lambda: found)
