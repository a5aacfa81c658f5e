"""The generator: same seed, same bytes; marked synthetic; readable by the data door; learnable to the stated degree."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cameo_client.consent.exchange import read_csv
from cameo_client.consent.store import ConsentStore
from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
from cameo_client.data.columns import model_columns, outcome_column
from cameo_client.data.hospital import HospitalData, load
from cameo_lab.generate import generator
from cameo_lab.generate.consents import RATES
from cameo_lab.generate.generator import Generated, generate
from cameo_lab.generate.population import draw_patients
from cameo_lab.generate.records import SNAPSHOT, as_table, observe
from cameo_lab.generate.sites import site_effect, site_sizes
from cameo_models.features import feature_matrix
from cameo_protocol.errors import OperatorError

KEY = bytes(range(32))
CATALOGUE = load_catalogue("cardiometabolic")
LABELS = load_labels(CATALOGUE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("made") / "data", 4, 2500, 7)


@pytest.fixture(scope="module")
def hospitals(made: Generated) -> list[HospitalData]:
    return [load(load_source(made.source, site.facts), CATALOGUE, LABELS, KEY) for site in made.sites]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    generate(tmp_path / "a", 2, 50, 3)
    generate(tmp_path / "b", 2, 50, 3)
    generate(tmp_path / "c", 2, 50, 4)
    one, two, three = (contents(tmp_path / name) for name in "abc")
    assert one == two
    assert one["hospital-1/facts.csv"] != three["hospital-1/facts.csv"]
    assert set(one) == {
        "SYNTHETIC.txt", "manifest.json", "hospital-1/facts.csv", "hospital-1/consents.csv", "hospital-2/facts.csv",
        "hospital-2/consents.csv",
    }  # fmt: skip


def test_sizes_differ_and_add_up() -> None:
    for sites, patients in ((1, 20), (4, 4000), (7, 33)):
        sizes = site_sizes(sites, patients)
        assert sum(sizes) == sites * patients
        assert min(sizes) >= patients // 2
    assert len(set(site_sizes(4, 4000))) > 1


def test_everything_is_marked_synthetic(made: Generated, hospitals: list[HospitalData]) -> None:
    assert json.loads((made.root / "manifest.json").read_text())["synthetic"] is True
    assert "No real person" in (made.root / "SYNTHETIC.txt").read_text()
    for site in made.sites:
        rows = pl.read_csv(site.facts, infer_schema=False)
        assert rows["synthetic"].unique().to_list() == ["1"]
        assert rows["person_id"].str.starts_with("SYN-").all()
        assert pl.read_csv(site.consents)["fictional"].unique().to_list() == [1]
    assert all(data.synthetic for data in hospitals)


def test_chunks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "CHUNK", 30)
    made = generate(tmp_path / "a", 1, 100, 3)
    rows = pl.read_csv(made.sites[0].facts, infer_schema=False)
    assert rows["person_id"].n_unique() == rows.height == 100
    assert rows.columns == pl.read_csv(made.sites[0].facts, n_rows=1).columns
    assert set(pl.read_csv(made.sites[0].consents)["person_id"]) <= set(rows["person_id"])


def test_quality_is_above_the_gate_and_the_planted_errors_are_found(hospitals: list[HospitalData]) -> None:
    for data in hospitals:
        assert data.quality.ready
        assert 95 <= data.quality.score < 100
    dimensions = {rule.dimension for data in hospitals for rule in data.quality.rules}
    assert dimensions == {"completeness", "plausibility", "consistency"}
    assert any(data.quality.cleaned not in ("no", "fewer than 11") for data in hospitals)
    assert any(data.quality.left_out != "no" for data in hospitals)


def test_the_cleaned_facts_are_plausible_and_fit_the_catalogue(hospitals: list[HospitalData]) -> None:
    rows = pl.concat(data.facts for data in hospitals)
    for fact in CATALOGUE.facts:
        column = rows[fact.name]
        assert fact.missing or column.null_count() == 0
        assert column.null_count() < rows.height, fact.name
        if fact.plausible is not None:
            assert fact.plausible[0] <= column.min() <= column.max() <= fact.plausible[1]  # type: ignore[operator]
        if fact.type in ("bool", "enum"):
            assert column.drop_nulls().n_unique() >= 2, fact.name


def test_every_shipped_rule_finds_somebody(hospitals: list[HospitalData]) -> None:
    rows = pl.concat(data.facts for data in hospitals)
    conditions = (
        "sbp >= 140 AND dbp >= 90", "metformin_fills_90d >= 2", "dx_t2d AND dx_t2d_years < 1",
        "dx_htn AND bmi >= 27 AND ldl >= 3.4", "family_hx_lung AND smoker AND age >= 45",
        "glu_days_high_streak >= 3 OR ppg > 11.1", "bp_days_high_streak >= 3", "steps_rate_30d >= 0.8",
        "bmi >= 25 AND NOT dx_t2d", "dx_t2d AND NOT insulin", "days_since_visit >= 90",
    )  # fmt: skip
    found = {
        text: pl.SQLContext(t=rows, eager=True).execute(f"SELECT 1 FROM t WHERE {text}").height for text in conditions
    }
    assert min(found.values()) >= 20, found
    assert max(found.values()) < 0.9 * rows.height, found


def test_risk_is_learnable_to_the_stated_degree(hospitals: list[HospitalData]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    features = np.concatenate([feature_matrix(CATALOGUE, model_columns(data, CATALOGUE)) for data in hospitals])
    outcome = np.concatenate([outcome_column(data, "t2d_12m") for data in hospitals])
    known = ~np.isnan(outcome)
    features, outcome = features[known], outcome[known]
    test = np.random.default_rng(0).random(outcome.size) < 0.4
    model = LogisticRegression(max_iter=2000).fit(features[~test], outcome[~test])
    assert 0.79 <= roc_auc_score(outcome[test], model.predict_proba(features[test])[:, 1]) <= 0.86
    assert 0.06 <= outcome.mean() <= 0.14


def test_outcomes_leave_out_who_has_the_disease(hospitals: list[HospitalData]) -> None:
    for data in hospitals:
        joined = data.facts.join(data.outcomes, on="pseudonym")
        assert joined.filter(pl.col("dx_t2d"))["t2d_12m"].null_count() == joined["dx_t2d"].sum()
        assert joined["insulin_3m"].drop_nulls().len() > 0
        assert set(joined["lapse"].drop_nulls().unique()) == {0, 1}


def test_consents_import_under_the_hospitals_pseudonyms(
    made: Generated, hospitals: list[HospitalData], tmp_path: Path
) -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    with ConsentStore.open(tmp_path / "c.sqlite") as store:
        assert store.add(read_csv(made.sites[0].consents, KEY), now=now) > 1000
        assert store.fictional()
        names = hospitals[0].facts["pseudonym"].to_list()
        for scope, (grant, _, _) in RATES.items():
            assert abs(store.granted(names, scope, now).mean() - grant) < 0.03  # type: ignore[arg-type]


def test_sites_differ_but_not_wildly() -> None:
    effects = [site_effect(np.random.default_rng([7, index])) for index in range(4)]
    assert len({effect.mix for effect in effects}) == 4
    for effect in effects:
        assert abs(sum(effect.mix) - 1) < 1e-9
        truth = draw_patients(np.random.default_rng(1), 4000, effect)
        assert 0.1 < truth["dx_t2d"].mean() < 0.45
        assert (truth["dbp"] < truth["sbp"]).all()
        assert (truth["refills_30d"] <= truth["refills_90d"]).all()


def test_the_mapping_reads_every_column_and_the_same_snapshot() -> None:
    rng = np.random.default_rng(1)
    effect = site_effect(rng)
    rows = as_table(observe(rng, draw_patients(rng, 40, effect), effect, 1, "SYN-1-"))
    mapping = load_source("cardiometabolic", Path("x.csv")).mapping
    assert set(map(str, mapping.columns())) == set(rows.columns)
    assert mapping.snapshot == SNAPSHOT
    assert set(mapping.facts) == {fact.name for fact in CATALOGUE.facts}


@pytest.mark.parametrize("numbers", [(0, 100, 1), (256, 100, 1), (4, 19, 1), (4, 10**8, 1), (4, 100, -1)])
def test_numbers_out_of_range_are_refused(numbers: tuple[int, int, int], tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="generate-range"):
        generate(tmp_path / "x", *numbers)
    assert not (tmp_path / "x").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OperatorError, match="generate-not-empty"):
        generate(tmp_path, 1, 20, 1)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}
    with pytest.raises(OperatorError, match="generate-unwritable"):
        generate(tmp_path / "thesis.txt" / "x", 1, 20, 1)


def test_an_earlier_result_is_replaced(tmp_path: Path) -> None:
    generate(tmp_path / "x", 3, 30, 1)
    generate(tmp_path / "x", 2, 30, 1)
    assert sorted(path.name for path in (tmp_path / "x").iterdir() if path.is_dir()) == ["hospital-1", "hospital-2"]
