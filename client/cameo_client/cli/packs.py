"""`cameo-node tags lint, test, diff, audit-pack`: for people who write rule packs. No patient is read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit

Packs = Annotated[list[Path] | None, typer.Argument(metavar="[PACK]...", hidden=True)]
CatalogueName = Annotated[
    str | None,
    typer.Option("--catalogue", metavar="NAME", help="Facts catalogue. Default: that of this node's source."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the group `tags`."""
    app.command()(lint)
    app.command(name="test")(examples)
    app.command()(diff)
    app.command(name="audit-pack")(audit_pack)


def lint(packs: Packs = None, catalogue: CatalogueName = None, home: Home = None, as_json: AsJson = False) -> None:
    """Check rule packs; every finding names file and line.

    PACK: YAML files; default: the packs of this node. Also checked against the packs in force. Exit code 2 when
    there is an error.

    \b
    Example:
      cameo-node tags lint conf/tags/heart.yaml --catalogue heart
    """
    from cameo_client.home import NodeHome, default_root
    from cameo_client.tags.author import lint as check
    from cameo_client.tags.store import TagStore

    paths, facts = _subject(packs, catalogue, home)
    place = NodeHome((home or default_root()).absolute())
    if place.tags.exists():
        with TagStore(place.tags) as store:
            found = check(paths, facts, today=_today(), store=store)
    else:
        found = check(paths, facts, today=_today())
    _tell(found, as_json)


def examples(packs: Packs = None, catalogue: CatalogueName = None, home: Home = None, as_json: AsJson = False) -> None:
    """Run the examples that the rules of a pack carry.

    PACK: YAML files; default: the packs of this node. Exit code 2 when an example is wrong.

    \b
    Example:
      cameo-node tags test conf/tags/heart.yaml --catalogue heart
    """
    from cameo_client.tags.author import test as run

    paths, facts = _subject(packs, catalogue, home)
    _tell(run(paths, facts, today=_today()), as_json)


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", hidden=True)],
    new: Annotated[str, typer.Argument(metavar="NEW", hidden=True)],
    models: Annotated[
        bool, typer.Option("--models", help="OLD and NEW are runs: what their models alone change in the tags.")
    ] = False,
    person: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="With --models: who asks; roles.yaml says who may.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What changed between two packs or two models.

    OLD and NEW are pack files, compared rule by rule; with --models, runs. Exit code 2 when the logic of a rule changed
    but not its version.

    \b
    Example:
      cameo-node tags diff old.yaml new.yaml
      cameo-node tags diff --models RUN1 RUN2 --as "C. Operator"
    """
    from cameo_client.tags.author import diff as compare

    if models:
        from cameo_client.cli.tags import compare_models

        compare_models(old, new, person, home, as_json)
    else:
        _tell(compare(Path(old), Path(new)), as_json)


def audit_pack(
    pack: Annotated[Path, typer.Argument(metavar="PACK", hidden=True)],
    catalogue: CatalogueName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Owner, evidence, purpose and review of every rule of PACK.

    \b
    Example:
      cameo-node tags audit-pack conf/tags/heart.yaml --catalogue heart
    """
    from cameo_client.tags.author import audit_pack as audit

    paths, facts = _subject([pack], catalogue, home)
    _tell(audit(paths[0], facts, today=_today()), as_json)


def _subject(packs: list[Path] | None, catalogue: str | None, home: Path | None) -> tuple[tuple[Path, ...], Any]:
    """The packs asked for and their catalogue; a node's home is needed only for what was left out."""
    from cameo_client.data.catalogue import load_catalogue
    from cameo_client.home import open_home
    from cameo_client.source import catalogue_of
    from cameo_client.tagging import pack_paths

    facts = load_catalogue(catalogue) if catalogue else catalogue_of(open_home(home))
    return (tuple(packs) if packs else pack_paths(open_home(home), facts.id)), facts


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    from cameo_client.tags.render import text
    from cameo_protocol.errors import ExitCode

    emit(answer, as_json, lambda: text(answer))
    if not answer["ok"]:
        raise typer.Exit(int(ExitCode.USAGE))


def _today() -> Any:
    return datetime.now(UTC).date()
