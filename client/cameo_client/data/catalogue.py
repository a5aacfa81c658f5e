"""The shipped definitions by name: facts catalogues, labels and source mappings, read strictly from conf/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from cameo_client.data.source import OmopMapping, OmopSource, SourceConfig, TableMapping, TableSource
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Catalogue, LabelDefinition, check_label, parse_catalogue, parse_label
from cameo_protocol.strict_yaml import MAX_BYTES, parse_model, parse_yaml

Definition = TypeVar("Definition", Catalogue, LabelDefinition, TableMapping, OmopMapping)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


def load_catalogue(name: str, *, root: Path | None = None) -> Catalogue:
    """The catalogue conf/facts/NAME.yaml. root: another conf folder. Anything wrong is an `OperatorError`."""
    raw, shown = _read("facts", name, root)
    return _named(parse_catalogue(raw, name=shown), name, shown)


def load_label(name: str, catalogue: Catalogue, *, root: Path | None = None) -> LabelDefinition:
    """The label conf/labels/NAME.yaml, checked against its catalogue."""
    raw, shown = _read("labels", name, root)
    label = _named(parse_label(raw, name=shown), name, shown)
    check_label(label, catalogue)
    return label


def load_labels(catalogue: Catalogue, *, root: Path | None = None) -> tuple[LabelDefinition, ...]:
    """Every label of conf/labels that is written for this catalogue, by name."""
    folder = (root or conf_dir()) / "labels"
    found = []
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else []:
        raw, shown = _read("labels", path.stem, root)
        label = _named(parse_label(raw, name=shown), path.stem, shown)
        if label.catalogue == catalogue.id:
            check_label(label, catalogue)
            found.append(label)
    return tuple(found)


def load_source(name: str, path: Path, *, root: Path | None = None) -> SourceConfig:
    """A source: the mapping conf/sources/NAME.yaml (or a YAML file of the hospital's own) and where its data lies.

    name: a shipped mapping's name, or a path that ends in .yaml. The mapping's `kind` says what `path` is: a CSV or
    Parquet file for `table`, a DuckDB file or a folder of table files for `omop`.
    """
    own = name.endswith(".yaml")
    raw, shown = (_bytes(Path(name), Path(name).name), Path(name).name) if own else _read("sources", name, root)
    body = parse_yaml(raw, name=shown)
    if isinstance(body, dict) and body.get("kind") == "omop":
        omop = parse_model(raw, OmopMapping, name=shown)
        return OmopSource(mapping=omop if own else _named(omop, name, shown), path=path)
    table = parse_model(raw, TableMapping, name=shown)
    return TableSource(mapping=table if own else _named(table, name, shown), path=path)


def _read(kind: str, name: str, root: Path | None) -> tuple[bytes, str]:
    folder = (root or conf_dir()) / kind
    if not _NAME.fullmatch(name) or not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) if folder.is_dir() else ""
        raise OperatorError(
            "definition-missing",
            what=f"conf/{kind} holds no definition of that name",
            do=f"use one of: {known or '(none found)'}",
        )
    shown = f"conf/{kind}/{name}.yaml"
    return _bytes(folder / f"{name}.yaml", shown), shown


def _bytes(path: Path, shown: str) -> bytes:
    """At most MAX_BYTES + 1 bytes, so that the parser, not the memory, refuses a huge file."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise OperatorError(
            "definition-unreadable",
            what=f"{shown}: {error.strerror or 'cannot be read'}",
            do="check the path and that this user may read it",
        ) from None


def _named(model: Definition, name: str, shown: str) -> Definition:
    if model.id != name:
        raise OperatorError(
            "definition-invalid", what=f"{shown}: its id is not {name}", do="give the file and its id one name"
        )
    return model
