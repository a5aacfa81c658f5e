"""The configuration that is shipped is found, and reads."""

from __future__ import annotations

import pytest

from cameo_protocol.confdir import conf_dir
from cameo_protocol.facts import check_label, parse_catalogue, parse_label

CATALOGUES = {path.stem: path for path in sorted((conf_dir() / "facts").glob("*.yaml"))}
LABELS = {path.stem: path for path in sorted((conf_dir() / "labels").glob("*.yaml"))}


def test_all_parts_are_there() -> None:
    for name in ("experiment.yaml", "facts", "labels", "tags", "sources", "policy"):
        assert (conf_dir() / name).exists()
    assert CATALOGUES
    assert LABELS


@pytest.mark.parametrize("name", CATALOGUES)
def test_each_shipped_catalogue_reads_under_its_own_name(name: str) -> None:
    assert parse_catalogue(CATALOGUES[name].read_bytes(), name=name).id == name


@pytest.mark.parametrize("name", LABELS)
def test_each_shipped_label_fits_its_catalogue(name: str) -> None:
    label = parse_label(LABELS[name].read_bytes(), name=name)
    assert label.id == name
    check_label(label, parse_catalogue(CATALOGUES[label.catalogue].read_bytes(), name=label.catalogue))
