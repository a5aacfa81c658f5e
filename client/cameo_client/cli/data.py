"""`cameo-node data`: what the data source holds, and what keeps it from being used."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, new_app

app = new_app("The hospital's data source. Counts below 11 are hidden.")


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
    rows: Annotated[
        str,
        typer.Option(
            "--rows", metavar="RULE", help="Also the rows that fail this rule, or all. They may point at patients."
        ),
    ] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Quality, 0 to 100, and what costs points.

    What cannot be read or cannot be true comes first, then the worst. Exit code 6 when there is something because of
    which nothing can be loaded, 3 when the quality is below 90.

    \b
    Example:
      cameo-node data check --rows missing:sbp
    """
    from cameo_client.data.check_view import as_text, as_value, known_rules
    from cameo_client.data.hospital import inspect
    from cameo_client.home import open_home
    from cameo_client.source import source_of
    from cameo_protocol.errors import OperatorError

    place = open_home(home)
    named, today = source_of(place), datetime.now(UTC).date()
    found = inspect(named.source, named.catalogue, named.labels, today=today, scratch=place.scratch)
    if rows and rows not in known_rules(found):
        raise OperatorError(
            "option-invalid",
            what="nothing fails a rule of that name",
            do=f"--rows takes one of: {', '.join(known_rules(found))}",
        )
    emit(as_value(found, rows), as_json, lambda: as_text(found, rows))
    _, report = found.cleaned()
    report.require()


@app.command()
def mapping(name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)]) -> None:
    """Print a shipped mapping, to make your own from.

    NAME is one of conf/sources: cardiometabolic-omop, cardiometabolic-fhir, cardiometabolic, heart, support2.

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
