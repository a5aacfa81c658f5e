"""`cameo-node tags export, access, log, roles, rotate-key`: what goes out to whom, and who may do what."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cameo_client.cli.options import AsJson, Home, PasswordEnv, PasswordFile, require_pseudonym
from cameo_protocol.audit_log import MAX_TEXT
from cameo_protocol.console import emit

if TYPE_CHECKING:
    from cameo_client.data.database import Database
    from cameo_client.home import NodeHome

Person = Annotated[
    str, typer.Option("--as", metavar="NAME", help="Who asks, decides or takes; roles.yaml says who may. It is logged.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the group `tags`."""
    app.command()(export)
    app.command()(access)
    app.command()(log)
    app.command()(roles)
    app.command(name="rotate-key")(rotate_key)


def export(
    person: Person,
    out: Annotated[Path | None, typer.Argument(metavar="[FILE]", hidden=True)] = None,
    *,
    form: Annotated[Literal["csv", "parquet"], typer.Option("--format", help="csv or parquet.")] = "csv",
    counts: Annotated[bool, typer.Option("--counts", help="Only counts: below 11 hidden, rounded to 5.")] = False,
    by: Annotated[str | None, typer.Option("--by", metavar="FACT", help="With --counts: split by sex, say.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="postgresql://USER@HOST/DATABASE")] = None,
    table: Annotated[str, typer.Option("--table", metavar="NAME", help="Table there; its rows are replaced.")] = (
        "cameo_tags"
    ),
    password_file: PasswordFile = None,
    password_env: PasswordEnv = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the stored tags into a file or table, or show counts.

    FILE is CSV or Parquet; the table is in PostgreSQL. For people and systems inside the hospital. Tags whose consent
    is gone are removed first; who took which row is logged; the tag policy limits the rows of a day.

    \b
    Example:
      cameo-node tags export tags.csv --as "C. Operator"
      cameo-node tags export --to postgresql://cameo@db/care --as "C. Operator"
      cameo-node tags export --counts --by sex --as "C. Operator"
    """
    from cameo_client.audit import note
    from cameo_client.home import open_home
    from cameo_protocol.errors import OperatorError

    if counts + (out is not None) + (to is not None) != 1 or (by is not None and not counts):
        what = "give one of FILE, --to and --counts, and --by with --counts only"
        raise OperatorError("option-invalid", what=what, do="cameo-node tags export --help")
    place = open_home(home)
    _require(place.roles, person, "export-counts" if counts else "export")
    database = _database(to, password_file, password_env) if to is not None else None
    answer = _counts(place, person, by) if counts else _export(place, person, out, form, database, table)
    note(place, "tags-exported", who=person, about=table if to is not None else form if out is not None else "counts")
    _tell(answer, as_json)


def _export(
    place: NodeHome,
    person: str,
    out: Path | None,
    form: Literal["csv", "parquet"],
    database: Database | None,
    table: str,
) -> dict[str, Any]:
    """Rows into a database or a file."""
    from cameo_client.consent.store import ConsentStore
    from cameo_client.home import PRIVATE, write_file
    from cameo_client.tagging import tag_policy
    from cameo_client.tags import takeout
    from cameo_client.tags.store import TagStore

    with TagStore(place.tags) as store, ConsentStore.open(place.consent) as consents:
        given = (store, consents, tag_policy(place), person, datetime.now(UTC))
        if database is not None:
            return takeout.export_table(*given, database=database, table=table)
        data, answer = takeout.export_rows(*given, form=form)
        write_file(Path(out or "").absolute(), data, PRIVATE)
        return answer


def _counts(place: NodeHome, person: str, by: str | None) -> dict[str, Any]:
    """Counts, of all patients or by the groups of one fact; only then are the facts read."""
    from cameo_client.consent.store import ConsentStore
    from cameo_client.node.study import load_local
    from cameo_client.tagging import tag_policy
    from cameo_client.tags import takeout
    from cameo_client.tags.store import TagStore

    now, policy = datetime.now(UTC), tag_policy(place)
    groups = takeout.groups_of(load_local(place, today=now.date()).data.facts, by, policy) if by else None
    with TagStore(place.tags) as store, ConsentStore.open(place.consent) as consents:
        return takeout.export_counts(store, consents, policy, person, now, groups)


def access(
    person: Person,
    pseudonym: Annotated[str, typer.Argument(metavar="PSEUDONYM", hidden=True)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Who has seen or taken the tags of PSEUDONYM, and when.

    \b
    Example:
      cameo-node tags access 0f3a… --as "E. Auditor"
    """
    from cameo_client.home import open_home
    from cameo_client.tags.author import SCHEMA_VERSION
    from cameo_client.tags.store import TagStore

    place = open_home(home)
    _require(place.roles, person, "access")
    require_pseudonym(pseudonym)
    with TagStore(place.tags) as store:
        found = store.accesses(pseudonym)
    _tell({"schema_version": SCHEMA_VERSION, "command": "access", "accesses": found}, as_json)


def log(person: Person, home: Home = None, as_json: AsJson = False) -> None:
    """The tags' own log, verified first.

    It is hash-chained: approvals, applies, reviews, exports, changes of roles and keys, and looks.

    \b
    Example:
      cameo-node tags log --as "E. Auditor"
    """
    from cameo_client.home import open_home
    from cameo_client.tags.author import SCHEMA_VERSION
    from cameo_client.tags.store import TagStore

    place = open_home(home)
    _require(place.roles, person, "log")
    with TagStore(place.tags) as store:
        _, head = store.verify()
        answer = {"schema_version": SCHEMA_VERSION, "command": "log", "head": head, "entries": store.entries()}
    _tell(answer, as_json)


def roles(
    add: Annotated[str | None, typer.Option("--add", metavar="NAME", help="Person to enter, or to change.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="author, reviewer, operator, auditor or patient_desk; may be given several times.",
        ),
    ] = None,
    owns: Annotated[
        list[str] | None, typer.Option("--owns", metavar="OWNER", help="Owner of rules for whom the person stands.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Who may do what with tags.

    With --add, the officer enters a person in roles.yaml; without it, the list is shown.

    \b
    Example:
      cameo-node tags roles
      cameo-node tags roles --add "B. Doctor" --role reviewer --owns "cardiology lead"
    """
    from cameo_client.audit import note
    from cameo_client.home import PUBLIC, checked, open_home, write_file
    from cameo_client.tags import roles as who
    from cameo_client.tags.author import SCHEMA_VERSION
    from cameo_client.tags.store import TagStore
    from cameo_protocol.errors import OperatorError

    place = open_home(home)
    if (add is None) != (not role) or (owns and add is None):
        raise OperatorError(
            "option-invalid", what="--add, --role and --owns go together", do="see: cameo-node tags roles --help"
        )
    known = who.load_roles(place.roles) if add is None or place.roles.exists() else None
    if add is not None:
        known = who.added(known, checked(who.Person, name=add, roles=tuple(role or ()), owns=tuple(owns or ())))
        note(place, "roles-changed", about=add, roles=" ".join(role or ()), owns=", ".join(owns or ())[:MAX_TEXT])
        write_file(place.roles, who.to_yaml(known), PUBLIC)
        with TagStore(place.tags) as store:
            entry = {"person": add, "roles": list(role or ()), "owns": list(owns or ())}
            store.note("roles-changed", entry, datetime.now(UTC))
    people = [one.model_dump(mode="json") for one in known.people] if known else []
    may = {action: [one for one in who.ROLES if one in allowed] for action, allowed in who.MAY.items()}
    _tell({"schema_version": SCHEMA_VERSION, "command": "roles", "entered": add, "people": people, "may": may}, as_json)


def rotate_key(
    forget: Annotated[
        bool, typer.Option("--forget-former", help="Destroy the former key instead: backups made under it are lost.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Give this home a new key-encryption key.

    The tag store's keys are wrapped with it; nothing is encrypted again. The former key stays beside the new one, since
    backups hang on it, until --forget-former.

    \b
    Example:
      cameo-node tags rotate-key
      cameo-node tags rotate-key --forget-former
    """
    from cameo_client import vault
    from cameo_client.audit import note
    from cameo_client.home import open_home
    from cameo_client.tags.store import TagStore

    place = open_home(home)
    fresh = vault.Vault.open(place) if forget else vault.rotate(place)
    with TagStore(place.tags, fresh) as store:  # opening it wraps its keys with the current key
        store.note("key-forgotten" if forget else "key-rotated", {"key": fresh.current.id.hex()}, datetime.now(UTC))
    note(place, "key-forgotten" if forget else "key-rotated", about="key-encryption key", key=fresh.current.id.hex())
    if forget:
        vault.finish(place)
    emit({"key": fresh.current.id.hex()}, as_json, lambda: f"key in use: {fresh.current.id.hex()}")


def _database(url: str, password_file: Path | None, password_env: str | None) -> Database:
    from cameo_client.data.database import Database
    from cameo_client.home import checked

    return checked(Database, url=url, password_file=password_file, password_env=password_env)


def _require(path: Path, person: str, action: str) -> None:
    from cameo_client.tags.roles import load_roles, require

    require(load_roles(path), person, action)


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    from cameo_client.tags.render import text

    emit(answer, as_json, lambda: text(answer))
