"""`cameo-node tags`: what patients are tagged with, why, and who decides. Everything stays in the hospital."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cameo_client.cli import packs
from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, new_app

if TYPE_CHECKING:
    from cameo_client.tags.desk import Ward
    from cameo_client.tags.store import TagStore

app = new_app("Rule packs and tags.")
packs.register(app)
Person = Annotated[str, typer.Option("--as", metavar="NAME", help="Who decides or takes; it goes into the log.")]


@app.command(name="dry-run")
def dry_run(home: Home = None, as_json: AsJson = False) -> None:
    """What `tags apply` would change. Nothing is written.

    \b
    Example:
      cameo-node tags dry-run
    """
    from cameo_client.tags import desk

    with _open(home) as (paths, ward, store):
        _tell(desk.dry_run(paths, ward, store), as_json)


@app.command()
def apply(home: Home = None, as_json: AsJson = False) -> None:
    """Score the patients with the newest models and write their tags.

    The running node does this by itself whenever a model is published.

    \b
    Example:
      cameo-node tags apply
    """
    from cameo_client.tags import desk

    with _open(home) as (paths, ward, store):
        _tell(desk.apply_packs(paths, ward, store)[1], as_json)


@app.command()
def explain(
    pseudonym: Annotated[str, typer.Argument(metavar="PSEUDONYM", hidden=True)],
    tag: Annotated[str, typer.Argument(metavar="TAG", hidden=True)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Why PSEUDONYM has TAG, or why not.

    \b
    Example:
      cameo-node tags explain 0f3a… t2d-risk-high
    """
    from cameo_client.tags import desk

    with _open(home) as (paths, ward, store):
        _tell(desk.explain(paths, ward, store, pseudonym, tag), as_json)


@app.command()
def queue(home: Home = None, as_json: AsJson = False) -> None:
    """The tags that wait for a person's decision.

    \b
    Example:
      cameo-node tags queue
    """
    from cameo_client.tags import desk

    with _store(home) as store:
        _tell(desk.queue(store, datetime.now(UTC)), as_json)


@app.command()
def approve(
    person: Person,
    pseudonym: Annotated[str | None, typer.Argument(metavar="[PSEUDONYM]", hidden=True)] = None,
    tag: Annotated[str | None, typer.Argument(metavar="[TAG]", hidden=True)] = None,
    pack: Annotated[
        Path | None, typer.Option("--pack", metavar="FILE", help="Put a rule pack in force instead.")
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Decide against the tag.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Decide on a waiting tag, or put a rule pack in force.

    Either PSEUDONYM and TAG, from `cameo-node tags queue`, or --pack. Nobody approves a rule of their own.

    \b
    Example:
      cameo-node tags approve 0f3a… lung-screening --as "A. Nurse"
      cameo-node tags approve --pack conf/tags/heart.yaml --as "B. Doctor"
    """
    from cameo_client.home import open_home
    from cameo_client.source import catalogue_of
    from cameo_client.tags import desk
    from cameo_protocol.errors import OperatorError

    now = datetime.now(UTC)
    if (pack is None) == (pseudonym is None or tag is None) or (pack is not None and reject):
        raise OperatorError(
            "option-invalid",
            what="give either PSEUDONYM and TAG, or --pack alone",
            do="cameo-node tags approve --help",
        )
    with _store(home) as store:
        if pack is not None:
            answer = desk.approve_pack(store, pack, catalogue_of(open_home(home)), person, now)
        else:
            answer = desk.approve(store, pseudonym or "", tag or "", person, now, reject=reject)
    _tell(answer, as_json)


@app.command(name="approve-pack")
def approve_pack(person: Person, home: Home = None, as_json: AsJson = False) -> None:
    """Put every rule pack of this node in force.

    They are HOME/packs/*.yaml or, where there are none, the shipped pack of the catalogue.

    \b
    Example:
      cameo-node tags approve-pack --as "B. Doctor"
    """
    from cameo_client.home import open_home
    from cameo_client.source import catalogue_of
    from cameo_client.tagging import pack_paths
    from cameo_client.tags import desk
    from cameo_client.tags.render import text

    place = open_home(home)
    facts = catalogue_of(place)
    with _store(home) as store:
        answers = [
            desk.approve_pack(store, path, facts, person, datetime.now(UTC)) for path in pack_paths(place, facts.id)
        ]
    emit({"packs": answers}, as_json, lambda: "\n".join(map(text, answers)))


@app.command()
def export(
    person: Person,
    out: Annotated[Path | None, typer.Argument(metavar="[FILE]", hidden=True)] = None,
    form: Annotated[Literal["csv", "parquet"], typer.Option("--format", help="csv or parquet.")] = "csv",
    counts: Annotated[bool, typer.Option("--counts", help="Only counts: below 11 hidden, rounded to 5.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the stored tags into FILE, or show counts.

    For people and systems inside the hospital. Who took what is logged; more than 100,000 rows a day are refused.

    \b
    Example:
      cameo-node tags export tags.csv --as "A. Nurse"
      cameo-node tags export --counts --as "A. Nurse"
    """
    from cameo_client.home import PRIVATE, write_file
    from cameo_client.tags import desk
    from cameo_protocol.errors import OperatorError

    now = datetime.now(UTC)
    if counts == (out is not None):
        raise OperatorError("option-invalid", what="give either FILE or --counts", do="cameo-node tags export --help")
    with _store(home) as store:
        if out is None:
            answer = desk.export_counts(store, person, now)
        else:
            data, answer = desk.export_rows(store, person, now, form=form)
            write_file(out.absolute(), data, PRIVATE)
    _tell(answer, as_json)


@app.command(name="enforce-consent")
def enforce_consent(home: Home = None, as_json: AsJson = False) -> None:
    """Remove at once the tags whose consent is gone.

    `cameo-node consent withdraw` and `import` do this by themselves.

    \b
    Example:
      cameo-node tags enforce-consent
    """
    _tell(enforce(home), as_json)


def enforce(home: Path | None) -> dict[str, Any]:
    """Hold the stored tags against the consent store now."""
    from cameo_client.consent.store import ConsentStore
    from cameo_client.home import open_home
    from cameo_client.tagging import tag_policy
    from cameo_client.tags import desk

    place = open_home(home)
    with _store(home) as store, ConsentStore.open(place.consent) as consents:
        return desk.enforce_consent(store, consents, tag_policy(place), datetime.now(UTC))


@contextmanager
def _open(home: Path | None) -> Iterator[tuple[tuple[Path, ...], Ward, TagStore]]:
    """Packs, patients and store. The patients are read and scored here."""
    from cameo_client.consent.store import ConsentStore
    from cameo_client.home import open_home
    from cameo_client.node.study import load_local
    from cameo_client.tagging import open_ward, pack_paths

    place, now = open_home(home), datetime.now(UTC)
    local = load_local(place, today=now.date())
    with ConsentStore.open(place.consent) as consents, _store(home) as store:
        yield pack_paths(place, local.catalogue.id), open_ward(place, local, consents, None, now), store


@contextmanager
def _store(home: Path | None) -> Iterator[TagStore]:
    from cameo_client.home import open_home
    from cameo_client.tags.store import TagStore

    with TagStore(open_home(home).tags) as store:
        yield store


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    from cameo_client.tags.render import text

    emit(answer, as_json, lambda: text(answer))
