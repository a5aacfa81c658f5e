"""The shipped definitions by name: facts catalogues, labels and source mappings, read strictly from conf/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from cameo_client.data.source import (
    Database,
    FhirMapping,
    FhirSource,
    OmopMapping,
    OmopSource,
    SourceConfig,
    TableMapping,
    TableSource,
)
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Catalogue, LabelDefinition, check_label, parse_catalogue, parse_label
from cameo_protocol.strict_yaml import MAX_BYTES, parse_model, parse_yaml

Definition = TypeVar("Definition", Catalogue, LabelDefinition, TableMapping, OmopMapping, FhirMapping)
Mapping = TypeVar("Mapping", TableMapping, OmopMapping, FhirMapping)
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


def load_source(name: str, place: Path | Database, *, root: Path | None = None) -> SourceConfig:
    """A source: the mapping conf/sources/NAME.yaml (or a YAML file of the hospital's own) and where its data lies.

    name: a shipped mapping's name, or a path that ends in .yaml. The mapping's `kind` says what `place` is: a CSV or
    Parquet file for `table`; a DuckDB file, a folder of table files or a `Database` for `omop`; a folder of NDJSON
    files for `fhir`. The data is not opened.
    """
    raw, shown = _mapping(name, root)
    body = parse_yaml(raw, name=shown)
    kind = body.get("kind") if isinstance(body, dict) else None
    if kind == "omop":
        return OmopSource(mapping=_of_name(parse_model(raw, OmopMapping, name=shown), name, shown), path=place)
    if isinstance(place, Database):
        raise OperatorError(
            "source-kind",
            what=f"{shown} is no mapping of kind omop, which PostgreSQL needs",
            do="use --source omop with a mapping of kind omop, or name a file",
        )
    if kind == "fhir":
        export = _of_name(parse_model(raw, FhirMapping, name=shown), name, shown)
        return FhirSource(export=export, mapping=export.over(_omop_of(export, name, root)), path=place)
    return TableSource(mapping=_of_name(parse_model(raw, TableMapping, name=shown), name, shown), path=place)


def mapping_text(name: str, *, root: Path | None = None) -> str:
    """The YAML text of the shipped mapping conf/sources/NAME.yaml."""
    return _read("sources", name, root)[0].decode()


def _omop_of(export: FhirMapping, name: str, root: Path | None) -> OmopMapping:
    """The OMOP mapping that a FHIR mapping names; a file of the hospital's own is looked for beside it."""
    base = str(Path(name).parent / export.omop) if export.omop.endswith(".yaml") else export.omop
    raw, shown = _mapping(base, root)
    return _of_name(parse_model(raw, OmopMapping, name=shown), base, shown)


def _mapping(name: str, root: Path | None) -> tuple[bytes, str]:
    """The bytes of a mapping and what errors call it."""
    if name.endswith(".yaml"):
        return _bytes(Path(name), Path(name).name), Path(name).name
    return _read("sources", name, root)


def _of_name(model: Mapping, name: str, shown: str) -> Mapping:
    """A shipped mapping has the name of its file; one of the hospital's own may have any."""
    return model if name.endswith(".yaml") else _named(model, name, shown)


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
