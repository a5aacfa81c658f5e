"""The data source that node.toml names, with its catalogue and labels, and reading it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
from cameo_client.data.source import Database, FhirSource, OmopSource, SourceConfig
from cameo_client.home import DataConfig, NodeHome, load_config, load_pseudonym_key
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Catalogue, LabelDefinition

if TYPE_CHECKING:
    from cameo_client.data.hospital import HospitalData


@dataclass(frozen=True)
class Configured:
    """A source with the public definitions it is read by. labels: those whose outcome the source holds."""

    source: SourceConfig
    catalogue: Catalogue
    labels: tuple[LabelDefinition, ...]


def configured(config: DataConfig) -> Configured:
    """The source of [data] in node.toml. The data itself is not opened."""
    if config.mapping is None:
        raise OperatorError(
            "source-unmapped",
            what=f"nothing says how the source of kind {config.kind} is read",
            do="name a mapping, for instance: --mapping cardiometabolic-omop",
        )
    source = load_source(config.mapping, _place(config))
    found = "fhir" if isinstance(source, FhirSource) else "omop" if isinstance(source, OmopSource) else "table"
    if found != config.kind:
        raise OperatorError(
            "source-kind",
            what=f"the source is of kind {config.kind}, and the mapping {source.mapping.id} reads kind {found}",
            do=f"use --source {found}, or a mapping of kind {config.kind}",
        )
    catalogue = load_catalogue(source.mapping.catalogue)
    source.mapping.check(catalogue)
    labels = tuple(label for label in load_labels(catalogue) if label.outcome in source.mapping.outcomes)
    return Configured(source, catalogue, labels)


def present(config: DataConfig) -> Configured:
    """As `configured`, and the file or folder of the source is there; a database is not called."""
    found = configured(config)
    place = found.source.path
    if isinstance(place, Path) and (trouble := _trouble(place)):
        raise OperatorError(
            "source-missing",
            what=f"{place} {trouble}",
            do="correct the path: --data, or [data] in node.toml",
            exit=ExitCode.DATA,
        )
    return found


def _trouble(place: Path) -> str:
    """What keeps this user from a file or folder; empty when nothing does."""
    try:
        place.stat()
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be reached by this user: {error.strerror}"
    return "" if os.access(place, os.R_OK) else "may not be read by this user"


def _place(config: DataConfig) -> Path | Database:
    from cameo_client.data.database import is_url

    if not is_url(config.path):
        return Path(config.path).expanduser()
    password = None if config.password_file is None else Path(config.password_file).expanduser()
    return Database(url=config.path, password_file=password, password_env=config.password_env)


def source_of(home: NodeHome) -> Configured:
    """The source that node.toml of this hospital names."""
    return configured(load_config(home).data)


def catalogue_of(home: NodeHome) -> Catalogue:
    """The facts catalogue for which the source is mapped."""
    return source_of(home).catalogue


def read(home: NodeHome, *, today: date | None = None) -> tuple[Configured, HospitalData]:
    """Read this hospital's source under its pseudonyms. Every fault is an `OperatorError`."""
    from cameo_client.data.hospital import load

    found = source_of(home)
    key = load_pseudonym_key(home.pseudonym_key)
    return found, load(found.source, found.catalogue, found.labels, key, today=today, scratch=home.scratch)
