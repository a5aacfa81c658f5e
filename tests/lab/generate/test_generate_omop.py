"""The same patients as a flat table and as OMOP events: both doors give the same facts, cell by cell."""

from __future__ import annotations

from pathlib import Path

import orjson
import polars as pl
import pytest

from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
from cameo_client.data.hospital import HospitalData, load
from cameo_lab.generate import generator
from cameo_lab.generate.generator import Format, generate

CATALOGUE = load_catalogue("cardiometabolic")
LABELS = load_labels(CATALOGUE)
KEY = bytes(range(32))
FORMATS: tuple[Format, ...] = ("table", "parquet")
# In the table: age to a tenth of a year, and shares to three digits; in OMOP: birth dates, and one event a day.
TOLERANCE = {"age": 0.002, "steps_rate_30d": 0.0006, "education_share": 0.0006}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[HospitalData, HospitalData]:
    site = generate(tmp_path_factory.mktemp("made") / "x", 1, 1500, 5, formats=FORMATS).sites[0]
    flat = load(load_source("cardiometabolic", site.facts), CATALOGUE, LABELS, KEY)
    return flat, load(load_source("cardiometabolic-omop", site.place("parquet")), CATALOGUE, LABELS, KEY)


def test_both_sources_hold_the_same_patients(pair: tuple[HospitalData, HospitalData]) -> None:
    flat, omop = pair
    assert flat.facts["pseudonym"].equals(omop.facts["pseudonym"])
    assert flat.quality.as_dict() == omop.quality.as_dict()
    assert omop.synthetic


@pytest.mark.parametrize("name", [fact.name for fact in CATALOGUE.facts])
def test_each_fact_is_the_same_from_both(name: str, pair: tuple[HospitalData, HospitalData]) -> None:
    one, two = (data.facts[name] for data in pair)
    if name in TOLERANCE:
        assert one.is_null().equals(two.is_null())
        assert (one - two).abs().max() <= TOLERANCE[name]  # type: ignore[operator]
    elif CATALOGUE.fact(name).type == "float":
        assert one.is_null().equals(two.is_null())
        assert ((one - two).abs().max() or 0.0) < 1e-9  # type: ignore[operator]
    else:
        assert one.equals(two)


@pytest.mark.parametrize("label", [label.id for label in LABELS])
def test_known_outcomes_agree(label: str, pair: tuple[HospitalData, HospitalData]) -> None:
    one, two = (data.outcomes[label] for data in pair)
    both = one.is_not_null() & two.is_not_null()
    assert both.sum() > 0.9 * one.is_not_null().sum()
    assert one.filter(both).equals(two.filter(both))
    assert set(one.filter(both)) == {0, 1}


def test_fhir_gives_the_same_facts_and_outcomes_cell_by_cell(tmp_path: Path) -> None:
    site = generate(tmp_path / "x", 1, 400, 5, formats=("parquet", "fhir")).sites[0]
    omop = load(load_source("cardiometabolic-omop", site.place("parquet")), CATALOGUE, LABELS, KEY)
    fhir = load(load_source("cardiometabolic-fhir", site.place("fhir")), CATALOGUE, LABELS, KEY)
    assert fhir.facts.equals(omop.facts)
    assert fhir.outcomes.equals(omop.outcomes)
    assert fhir.quality.as_dict() == omop.quality.as_dict()
    assert fhir.synthetic


def test_chunks_and_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks leave no seam in any format, and an earlier result goes away as a whole."""
    every: tuple[Format, ...] = ("duckdb", "parquet", "csv", "fhir")
    whole = generate(tmp_path / "whole", 1, 40, 5, formats=every).sites[0]
    monkeypatch.setattr(generator, "CHUNK", 40)
    site = generate(tmp_path / "x", 1, 100, 5, formats=every).sites[0]
    assert len(list((site.place("parquet") / "person").iterdir())) == 3
    rows = pl.read_parquet(site.place("parquet") / "measurement" / "*.parquet")
    assert rows["measurement_id"].n_unique() == rows.height
    read = [load(load_source(generator.source_of(f)[1], site.place(f)), CATALOGUE, LABELS, KEY) for f in every]
    assert read[0].facts.height >= 99
    assert all(data.facts.equals(read[0].facts) for data in read)
    assert whole.place("duckdb").is_file()
    assert not whole.place("duckdb").with_suffix(".parts").exists()
    generate(tmp_path / "x", 1, 100, 5)
    assert sorted(path.name for path in site.folder.iterdir()) == ["consents.csv", "facts.csv"]


def test_fhir_resources_are_marked_as_test_data(tmp_path: Path) -> None:
    site = generate(tmp_path / "x", 1, 30, 5, formats=("fhir",)).sites[0]
    files = list(site.place("fhir").glob("*.ndjson"))
    assert len(files) == 7
    for file in files:
        for line in file.read_bytes().splitlines():
            resource = orjson.loads(line)
            assert resource["resourceType"] == file.stem
            assert resource["meta"]["tag"][0]["code"] == "HTEST"
