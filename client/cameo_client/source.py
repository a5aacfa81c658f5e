"""The data source that node.toml names, with its catalogue and labels."""

from __future__ import annotations

from pathlib import Path

from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
from cameo_client.data.source import SourceConfig
from cameo_client.home import NodeHome, load_config
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Catalogue, LabelDefinition


def source_of(home: NodeHome) -> SourceConfig:
    """The mapping and the file; the file itself is not opened."""
    config = load_config(home).data
    if config.kind != "table" or config.mapping is None:
        raise OperatorError(
            "source-unknown",
            what=f"node.toml names a source of kind {config.kind!r}",
            do="use kind table with a mapping, for instance: --source table --mapping cardiometabolic",
        )
    return load_source(config.mapping, Path(config.path).expanduser())


def catalogue_of(home: NodeHome) -> Catalogue:
    """The facts catalogue for which the source is mapped."""
    return load_catalogue(source_of(home).mapping.catalogue)


def labels_of(source: SourceConfig, catalogue: Catalogue) -> tuple[LabelDefinition, ...]:
    """The labels of the catalogue whose outcome the source holds."""
    return tuple(label for label in load_labels(catalogue) if label.outcome in source.mapping.outcomes)
