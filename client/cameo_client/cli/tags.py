"""`cameo-node tags`: what patients are tagged with, why, and who decides. Everything stays in the hospital."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cameo_client.cli import packs, tags_out
from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, new_app

if TYPE_CHECKING:
    from cameo_client.tags import roles
    from cameo_client.tags.desk import Ward
    from cameo_client.tags.store import TagStore

app = new_app(
    "Rule packs and tags.\n\nExit code 4 when roles.yaml does not let a person do it; 2 when a pack has a fault."
)
packs.register(app)
Person = Annotated[
    str, typer.Option("--as", metavar="NAME", help="Who asks, decides or takes; roles.yaml says who may. It is logged.")
]


@app.command(name="dry-run")
def dry_run(person: Person, home: Home = None, as_json: AsJson = False) -> None:
    """What `tags apply` would change, and whom each rule reaches. No tag is written.

    \b
    Example:
      cameo-node tags dry-run --as "C. Operator"
    """
    from cameo_client.tags import desk

    _require(home, person, "dry-run")
    with _open(home) as (paths, ward, store):
        _tell(desk.dry_run(paths, ward, store), as_json)


@app.command()
def apply(
    person: Person,
    changed: Annotated[
        bool, typer.Option("--changed", help="Evaluate only patients for whom something changed; the same result.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Score the patients and write their tags.

    With the models that serve. The running node does this by itself whenever a model is published.

    \b
    Example:
      cameo-node tags apply --as "C. Operator"
    """
    from cameo_client.tags import desk

    _require(home, person, "apply")
    with _open(home) as (paths, ward, store):
        answer = desk.apply_packs(paths, ward, store, changed_only=changed)[1]
    _note(home, "tags-applied", person)
    _tell(answer, as_json)


@app.command()
def explain(
    person: Person,
    pseudonym: Annotated[str, typer.Argument(metavar="PSEUDONYM", hidden=True)],
    tag: Annotated[str, typer.Argument(metavar="TAG", hidden=True)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Why PSEUDONYM has TAG, or why not.

    In the staff's words and in the patient's; the patient desk sees the latter.

    \b
    Example:
      cameo-node tags explain 0f3a… t2d-risk-high --as "D. Desk"
    """
    from cameo_client.tags import desk

    staff = "reviewer" in _require(home, person, "explain").roles
    with _open(home) as (paths, ward, store):
        answer = desk.explain(paths, ward, store, pseudonym, tag)
        store.log_access(person, "explained", [(pseudonym, tag)], ward.now)
    _tell(answer if staff else desk.patients_part(answer), as_json)


@app.command()
def queue(person: Person, home: Home = None, as_json: AsJson = False) -> None:
    """The tags that wait for a person's decision.

    \b
    Example:
      cameo-node tags queue --as "A. Nurse"
    """
    from cameo_client.tags import desk

    _require(home, person, "queue")
    now = datetime.now(UTC)
    with _store(home) as store:
        answer = desk.queue(store, now)
        store.log_access(person, "queue", [(row["pseudonym"], row["tag"]) for row in answer["waiting"]], now)
    _tell(answer, as_json)


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
        what, do = "give either PSEUDONYM and TAG, or --pack alone", "cameo-node tags approve --help"
        raise OperatorError("option-invalid", what=what, do=do)
    owns = _require(home, person, "approve" if pack is None else "approve-pack").owns
    with _store(home) as store:
        if pack is not None:
            answer = desk.approve_pack(store, pack, catalogue_of(open_home(home)), person, now, owns=owns)
            _note(home, "pack-approved", person, str(answer["pack"]), sha256=str(answer["sha256"]))
        else:
            answer = desk.approve(store, pseudonym or "", tag or "", person, now, reject=reject, owns=owns)
            _note(home, "tag-reviewed", person, str(tag), verdict=str(answer["verdict"]))
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
    owns = _require(home, person, "approve-pack").owns
    facts, now = catalogue_of(place), datetime.now(UTC)
    with _store(home) as store:
        answers = [
            desk.approve_pack(store, path, facts, person, now, owns=owns) for path in pack_paths(place, facts.id)
        ]
    for answer in answers:
        _note(home, "pack-approved", person, str(answer["pack"]), sha256=str(answer["sha256"]))
    emit({"packs": answers}, as_json, lambda: "\n".join(map(text, answers)))


@app.command(name="enforce-consent")
def enforce_consent(home: Home = None, as_json: AsJson = False) -> None:
    """Remove at once the tags whose consent is gone.

    `cameo-node consent withdraw` and `import` do this by themselves.

    \b
    Example:
      cameo-node tags enforce-consent
    """
    from cameo_client.audit import account

    answer = enforce(home)
    _note(home, "consent-enforced", account())
    _tell(answer, as_json)


def enforce(home: Path | None) -> dict[str, Any]:
    """Hold the stored tags against the consent store now."""
    from cameo_client.consent.store import ConsentStore
    from cameo_client.home import open_home
    from cameo_client.tagging import tag_policy
    from cameo_client.tags import desk

    place = open_home(home)
    with _store(home) as store, ConsentStore.open(place.consent) as consents:
        return desk.enforce_consent(store, consents, tag_policy(place), datetime.now(UTC))


def compare_models(old: str, new: str, person: str | None, home: Path | None, as_json: bool) -> None:
    """`tags diff --models`: the same patients and rules with the models of two runs."""
    from cameo_client.tags import desk

    _require(home, person or "", "diff-models")
    with _open(home, new) as (paths, after, store), _open(home, old) as (_, before, _):
        _tell(desk.diff_models(paths, desk.Ward(**{**vars(before), "now": after.now}), after, store), as_json)


def _require(home: Path | None, person: str, action: str) -> roles.Person:
    """Refuse a person whose roles do not allow the action, before anything is read."""
    from cameo_client.home import open_home
    from cameo_client.tags import roles

    return roles.require(roles.load_roles(open_home(home).roles), person, action)


@contextmanager
def _open(home: Path | None, run: str | None = None) -> Iterator[tuple[tuple[Path, ...], Ward, TagStore]]:
    """Packs, patients and store. The patients are read and scored here, with the models of a run or the newest."""
    from cameo_client.consent.store import ConsentStore
    from cameo_client.home import open_home
    from cameo_client.node.study import load_local
    from cameo_client.tagging import open_ward, pack_paths

    place, now = open_home(home), datetime.now(UTC)
    local = load_local(place, today=now.date())
    with ConsentStore.open(place.consent) as consents, _store(home) as store:
        yield pack_paths(place, local.catalogue.id), open_ward(place, local, consents, run, now), store


@contextmanager
def _store(home: Path | None) -> Iterator[TagStore]:
    from cameo_client.home import open_home
    from cameo_client.tags.store import TagStore

    with TagStore(open_home(home).tags) as store:
        yield store


def _note(home: Path | None, kind: str, person: str, about: str = "", **facts: str) -> None:
    """Write down who did it; what it said of whom is in the tag store's own log."""
    from cameo_client.audit import note
    from cameo_client.home import open_home

    note(open_home(home), kind, who=person, about=about, **facts)


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    from cameo_client.tags.render import text

    emit(answer, as_json, lambda: text(answer))


tags_out.register(app)
