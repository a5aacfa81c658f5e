"""Roles: every role by every command, the strict file, and four eyes between people who stand for owners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cameo_client.tags import roles
from cameo_client.tags.roles import MAY, ROLES, Person, Roles, added, load_roles, require, to_yaml
from cameo_protocol.errors import ExitCode, OperatorError

# Written out by hand: a change of the table in the code must be meant here too. a = author, r = reviewer,
# o = operator, u = auditor, d = patient desk.
MATRIX = {
    "lint": "aroud",
    "test": "aroud",
    "diff": "aroud",
    "audit-pack": "aroud",
    "dry-run": "aro",
    "diff-models": "aro",
    "apply": "o",
    "queue": "r",
    "approve": "r",
    "approve-pack": "r",
    "explain": "rd",
    "export": "o",
    "export-counts": "ou",
    "access": "ud",
    "log": "u",
}
LETTER = {"author": "a", "reviewer": "r", "operator": "o", "auditor": "u", "patient_desk": "d"}


def test_the_matrix_names_every_command() -> None:
    assert MAY.keys() == MATRIX.keys()
    assert tuple(LETTER) == ROLES


@pytest.mark.parametrize("action", MATRIX)
@pytest.mark.parametrize("role", ROLES)
def test_every_cell(action: str, role: Any) -> None:
    book = Roles(version=1, people=(Person(name="Ann Lee", roles=(role,)),))
    if LETTER[role] in MATRIX[action]:
        assert require(book, " ann  LEE", action).name == "Ann Lee"
    else:
        with pytest.raises(OperatorError) as error:
            require(book, "Ann Lee", action)
        assert (error.value.code, error.value.exit_code) == ("role-lacking", ExitCode.POLICY)


@pytest.mark.parametrize("action", MATRIX)
def test_nobody_else_may_do_anything(action: str) -> None:
    book = Roles(version=1, people=(Person(name="Ann Lee", roles=ROLES),))
    for name in ("Bob Lee", "", "ann"):
        with pytest.raises(OperatorError, match="role-lacking"):
            require(book, name, action)


def test_several_roles_add_up_and_only_they() -> None:
    book = Roles(version=1, people=(Person(name="Ann Lee", roles=("auditor", "author")),))
    require(book, "Ann Lee", "log")
    require(book, "Ann Lee", "dry-run")
    with pytest.raises(OperatorError):
        require(book, "Ann Lee", "approve")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("version: 1\npeople: [{name: Ann Lee, roles: [boss]}]", "definition-invalid"),
        ("version: 1\npeople: [{name: Ann Lee, roles: []}]", "definition-invalid"),
        ("version: 1\npeople: [{name: Ann Lee, roles: [author], admin: true}]", "definition-invalid"),
        (
            "version: 1\npeople: [{name: Ann Lee, roles: [author]}, {name: ANN LEE, roles: [auditor]}]",
            "definition-invalid",
        ),
        ("version: 1\nversion: 1\npeople: []", "yaml-refused"),
        ("version: 2\npeople: []", "definition-invalid"),
        ("", "definition-invalid"),
    ],
)
def test_the_file_is_strict(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text(text)
    with pytest.raises(OperatorError) as error:
        load_roles(path)
    assert error.value.code == code


def test_missing_means_nobody_and_writable_by_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    with pytest.raises(OperatorError) as error:
        load_roles(path)
    assert (error.value.code, error.value.exit_code) == ("roles-missing", ExitCode.POLICY)
    path.write_bytes(to_yaml(added(None, Person(name="Ann Lee", roles=("author",)))))
    path.chmod(0o666)
    with pytest.raises(OperatorError, match="roles-exposed"):
        load_roles(path)
    path.chmod(0o644)
    assert load_roles(path).people == (Person(name="Ann Lee", roles=("author",)),)


def test_adding_replaces_the_same_person() -> None:
    one = added(None, Person(name="Ann Lee", roles=("author",)))
    two = added(one, Person(name="ann lee", roles=("reviewer",), owns=("cardiology lead",)))
    assert two.people == (Person(name="ann lee", roles=("reviewer",), owns=("cardiology lead",)),)
    assert len(added(two, Person(name="Bob Ray", roles=("auditor",))).people) == 2


def test_who_stands_for_an_owner_does_not_review_what_is_theirs(kit: Any, tmp_path: Path) -> None:
    from cameo_client.tags.pack import parse_pack
    from cameo_client.tags.record import write
    from cameo_client.tags.store import TagStore

    rule = kit.rule(review="always", owner="cardiology lead")
    pack, _, _ = parse_pack(kit.text(rule), "p")
    assert pack is not None
    with TagStore(tmp_path / "tags.sqlite") as store:
        with pytest.raises(OperatorError, match="self-review"):
            store.approve_pack(pack, "Ann Lee", kit.noon, ("Cardiology  Lead",))
        store.approve_pack(pack, "Bob Ray", kit.noon, ("another clinic",))
        write(store, kit.run([rule], [{"sbp": 150.0}]))
        with pytest.raises(OperatorError, match="self-review"):
            store.review("p0", "bp-high", "Ann Lee", "approved", kit.noon, ("cardiology lead",))
        store.review("p0", "bp-high", "Bob Ray", "approved", kit.noon)


def test_every_command_that_reads_patients_asks_for_a_name() -> None:
    """The command line's side: each has a required --as, but for what only removes tags or changes keys and roles."""
    import typer

    from cameo_client.cli.tags import app

    group = typer.main.get_command(app)
    named = {
        name
        for name, command in group.commands.items()  # type: ignore[attr-defined]
        if any("--as" in option.opts and option.required for option in command.params)
    }
    free = {"lint", "test", "diff", "audit-pack", "enforce-consent", "roles", "rotate-key"}
    assert named == set(group.commands) - free  # type: ignore[attr-defined]
    assert named == set(roles.MAY) - {"lint", "test", "diff", "audit-pack", "diff-models", "export-counts"}
