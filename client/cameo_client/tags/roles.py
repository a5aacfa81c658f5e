"""Who may do what with tags: five roles, one table, and the officer's list of people (HOME/roles.yaml).

Least privilege: a person without an entry may do nothing, an entry allows what its roles need and no more. The names
are those that `--as` gives; every use goes into the hash-chained log under that name.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from cameo_client.tags.store import same
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.strict_yaml import parse_model

Role = Literal["author", "reviewer", "operator", "auditor", "patient_desk"]
Name = Annotated[str, Field(pattern=r"^\S.{1,58}\S$")]
ROLES: tuple[Role, ...] = ("author", "reviewer", "operator", "auditor", "patient_desk")
_EVERYBODY = frozenset(ROLES)
MAY: Mapping[str, frozenset[Role]] = {
    "lint": _EVERYBODY,  # these four read rule packs and no patient; they ask for no name
    "test": _EVERYBODY,
    "diff": _EVERYBODY,
    "audit-pack": _EVERYBODY,
    "dry-run": frozenset({"author", "reviewer", "operator"}),
    "diff-models": frozenset({"author", "reviewer", "operator"}),
    "apply": frozenset({"operator"}),
    "queue": frozenset({"reviewer"}),
    "approve": frozenset({"reviewer"}),
    "approve-pack": frozenset({"reviewer"}),
    "explain": frozenset({"reviewer", "patient_desk"}),
    "export": frozenset({"operator"}),
    "export-counts": frozenset({"operator", "auditor"}),
    "access": frozenset({"auditor", "patient_desk"}),
    "log": frozenset({"auditor"}),
}


class Person(BaseModel, frozen=True, extra="forbid"):
    """One entry. owns: owners of rules, as the packs name them, for whom this person stands: never reviewed by them."""

    name: Name
    roles: tuple[Role, ...] = Field(min_length=1)
    owns: tuple[Name, ...] = ()


class Roles(BaseModel, frozen=True, extra="forbid"):
    """roles.yaml."""

    version: Literal[1]
    people: tuple[Person, ...] = Field(max_length=1000)

    @model_validator(mode="after")
    def _one_entry_each(self) -> Self:
        for number, person in enumerate(self.people):
            if any(same(person.name, other.name) for other in self.people[:number]):
                raise ValueError(f"{person.name} stands there twice")
        return self


def load_roles(path: Path) -> Roles:
    """Read roles.yaml. Missing, damaged, or writable by others than its owner: `OperatorError`."""
    try:
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OperatorError(
                "roles-exposed", what=f"{path} may be written by others than its owner",
                do=f"check its content, then: chmod 644 {path}", exit=ExitCode.POLICY,
            )  # fmt: skip
        raw = path.read_bytes()
    except OSError:
        raise OperatorError(
            "roles-missing",
            what="nobody has a role at this node yet",
            do=f'the officer writes {path}, or runs: cameo-node tags roles --add "NAME" --role reviewer',
            exit=ExitCode.POLICY,
        ) from None
    return parse_model(raw, Roles, name=path.name)


def require(roles: Roles, name: str, action: str) -> Person:
    """The entry of the person who asks; `OperatorError("role-lacking")` unless one of its roles may do the action."""
    needed = MAY[action]
    person = next((one for one in roles.people if same(one.name, name)), None)
    if person is None or needed.isdisjoint(person.roles):
        raise OperatorError(
            "role-lacking",
            what=f"{action} is for: {', '.join(role for role in ROLES if role in needed)};"
            " roles.yaml gives none of these to that name",
            do="have a person with that role do it, or ask the officer: cameo-node tags roles",
            exit=ExitCode.POLICY,
        )
    return person


def added(roles: Roles | None, person: Person) -> Roles:
    """The list with one more person, or with that person's entry replaced."""
    others = tuple(one for one in roles.people if not same(one.name, person.name)) if roles else ()
    return Roles(version=1, people=(*others, person))


def to_yaml(roles: Roles) -> bytes:
    """roles.yaml's bytes."""
    import yaml

    return yaml.safe_dump(roles.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode()
