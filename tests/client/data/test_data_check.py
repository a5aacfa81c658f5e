"""`cameo-node data check` on the command line, and cleaning: only what the mapping names, and all of it counted."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fhir_kit import CATALOGUE, KEY, LABELS
from test_bad_input import LONG_AGO, MAPPING, REFUSE, TEXT, TODAY, at, flat, placed, tables

from cameo_client.data.hospital import HospitalData, inspect, load
from cameo_client.data.pseudonyms import pseudonym
from cameo_client.data.source import OmopSource, TableSource
from cameo_lab.generate.generator import generate
from cameo_protocol.errors import OperatorError

NODE = str(Path(sysconfig.get_path("scripts")) / "cameo-node")


def node(*words: str) -> tuple[int, str, str]:
    done = subprocess.run([NODE, *words], capture_output=True, text=True, check=False, env={"PATH": "/usr/bin"})
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flat table of a made-up hospital."""
    return generate(tmp_path_factory.mktemp("made") / "x", 1, 150, 7).sites[0].facts


def home_of(data: Path, home: Path) -> tuple[str, str]:
    words = ("--name", "h", "--source", "table", "--data", str(data), "--mapping", "cardiometabolic")
    assert node("init", *words, "--home", str(home))[0] == 0
    return "--home", str(home)


def spoilt(made: Path, path: Path, rows: int) -> Path:
    """With implausible pressures, and diastolic above systolic, in the first rows."""
    frame = pl.read_csv(made, infer_schema=False)
    first = pl.int_range(pl.len()) < rows
    for name, value in (("sbp", "65"), ("dbp", "155"), ("hba1c", "99")):
        frame = frame.with_columns(pl.when(first).then(pl.lit(value)).otherwise(name).alias(name))
    frame.write_csv(path)
    return path


def test_a_good_source_ends_with_0_and_tells_its_score(made: Path, tmp_path: Path) -> None:
    at_home = home_of(made, tmp_path / "h")
    code, out, err = node("data", "check", *at_home)
    assert (code, err) == (0, "")
    assert "quality 99." in out
    assert "ready" in out
    code, out, _ = node("data", "check", "--json", *at_home)
    told = json.loads(out)
    assert (code, told["schema_version"], told["quality"]["ready"]) == (0, 1, True)
    assert "row_numbers" not in out


def test_below_90_the_exit_code_is_3_worst_rules_first_and_rows_on_request(made: Path, tmp_path: Path) -> None:
    at_home = home_of(spoilt(made, tmp_path / "bad.csv", 60), tmp_path / "h")
    code, out, err = node("data", "check", *at_home)
    assert code == 3
    assert "quality-too-low" in err
    assert "NOT ready" in out
    assert "rows 1," not in out
    code, out, _ = node("data", "check", "--json", "--rows", "inconsistent:dbp-below-sbp", *at_home)
    told = json.loads(out)
    costs = [rule["cost"] for rule in told["quality"]["rules"]]
    assert (code, costs) == (3, sorted(costs, reverse=True))
    assert told["quality"]["score"] < 90
    numbered = {rule["id"]: rule.get("row_numbers") for rule in told["quality"]["rules"]}
    assert numbered.pop("inconsistent:dbp-below-sbp") == list(range(1, 61))
    assert set(numbered.values()) == {None}
    code, out, _ = node("data", "check", "--rows", "impossible:hba1c", *at_home)
    assert "rows 1, 2, 3," in out
    assert " …" in out
    code, _, err = node("data", "check", "--rows", "no-such-rule", *at_home)
    assert (code, "option-invalid" in err, "inconsistent:dbp-below-sbp" in err) == (2, True, True)


def test_what_stops_the_load_ends_with_6(made: Path, tmp_path: Path) -> None:
    text = made.read_text().splitlines()
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join([*text, text[1]]) + "\n")
    at_home = home_of(bad, tmp_path / "h")
    code, out, err = node("data", "check", "--json", "--rows", "data-duplicate-id", *at_home)
    (found,) = [one for one in json.loads(out)["findings"] if one["stops"]]
    assert (code, found["code"], found["count"]) == (6, "data-duplicate-id", "fewer than 11")
    assert found["row_numbers"] == [1, len(text)]
    assert "data-duplicate-id" in err


def cleaned(tmp_path: Path, text: str, **modes: Any) -> HospitalData:
    path = tmp_path / "clinic.csv"
    path.write_text(flat(text))
    mapping = MAPPING.model_copy(update={"impossible": "clear"} | modes)
    return load(TableSource(mapping=mapping, path=path), CATALOGUE, LABELS, KEY, today=TODAY)


def test_rows_that_say_the_same_again_are_dropped_where_the_mapping_says_so(tmp_path: Path) -> None:
    again = TEXT + "".join(f"{line}\n" for line in TEXT.splitlines()[1:13])
    with pytest.raises(OperatorError, match="data-duplicate-id"):
        cleaned(tmp_path, again)
    data = cleaned(tmp_path, again, duplicates="drop")
    assert data.facts.equals(cleaned(tmp_path, TEXT).facts)
    assert data.quality.repeated == "12"
    assert data.quality.as_dict()["repeated"] == "12"
    with pytest.raises(OperatorError, match="data-duplicate-id"):
        cleaned(tmp_path, TEXT + "p1,999,0,1\n", duplicates="drop")  # the same patient, something else


def test_contradictions_are_cleared_where_the_mapping_says_so(made: Path, tmp_path: Path) -> None:
    from cameo_client.data.catalogue import load_catalogue, load_labels, load_source

    bad, catalogue = spoilt(made, tmp_path / "bad.csv", 12), load_catalogue("cardiometabolic")
    source = load_source("cardiometabolic", bad)
    assert isinstance(source, TableSource)
    kept = load(source, catalogue, load_labels(catalogue), KEY)
    clear = source.model_copy(update={"mapping": source.mapping.model_copy(update={"contradictions": "clear"})})
    found = load(clear, catalogue, load_labels(catalogue), KEY)
    assert (kept.quality.contradicting, found.quality.contradicting) == ("no", "24")
    assert found.quality.score == kept.quality.score
    gone = found.facts["sbp"].null_count() - kept.facts["sbp"].null_count()
    assert gone == found.facts["dbp"].null_count() - kept.facts["dbp"].null_count() == 12


def omop(tmp_path: Path, frames: dict[str, pl.DataFrame], **modes: Any) -> OmopSource:
    source = placed("parquet", frames, tmp_path, "")
    assert isinstance(source, OmopSource)
    return source.model_copy(update={"mapping": REFUSE.model_copy(update=modes)})


def fact(source: OmopSource, name: str, person: int) -> object:
    data = load(source, CATALOGUE, LABELS, KEY, today=TODAY)
    return data.facts.filter(pl.col("pseudonym") == pseudonym(KEY, str(person)))[name].item()


def test_repeated_rows_of_omop_count_once(tmp_path: Path) -> None:
    frames = tables()
    frames["visit_occurrence"] = pl.concat([frames["visit_occurrence"], frames["visit_occurrence"].head(12)])
    frames["person"] = pl.concat([frames["person"], frames["person"].head(1)])
    dropped = omop(tmp_path, frames, duplicates="drop")
    assert fact(dropped, "visits", 1) == 1
    assert inspect(dropped, CATALOGUE, LABELS, today=TODAY).quality.repeated == "13"
    with pytest.raises(OperatorError, match="data-duplicate-id: person, column person_id"):
        load(omop(tmp_path, frames), CATALOGUE, LABELS, KEY)


def test_mixed_units_stop_the_load_whatever_is_cleared(tmp_path: Path) -> None:
    frames = tables() | {"measurement": at(tables()["measurement"], "unit_concept_id", 8840)}
    lenient = omop(tmp_path, frames, impossible="clear", contradictions="clear", duplicates="drop")
    with pytest.raises(OperatorError, match="data-mixed-units"):
        load(lenient, CATALOGUE, LABELS, KEY)


def test_contradicting_dates_of_omop_cost_points_or_are_passed_over(tmp_path: Path) -> None:
    frames = tables() | {"visit_occurrence": at(tables()["visit_occurrence"], "visit_start_date", LONG_AGO, 12)}
    frames["drug_exposure"] = at(frames["drug_exposure"], "drug_exposure_start_date", LONG_AGO, 12)
    frames["condition_occurrence"] = at(frames["condition_occurrence"], "condition_start_date", LONG_AGO, 6)
    scored = omop(tmp_path, frames)
    found = inspect(scored, CATALOGUE, LABELS, today=TODAY)
    assert [(rule.id, rule.rows) for rule in found.quality.rules] == [("inconsistent:dates", "12")]
    assert found.quality.rows_failing("inconsistent:dates") == tuple(range(1, 13))
    assert fact(scored, "dx", 1) is True
    clear = omop(tmp_path, frames, contradictions="clear")
    assert fact(clear, "dx", 1) is False
    assert load(clear, CATALOGUE, LABELS, KEY, today=TODAY).quality.contradicting == "30"


def test_a_patient_is_charged_once_for_one_contradiction(tmp_path: Path) -> None:
    """Where the facts themselves contradict each other, the dates behind them cost nothing more."""
    from cameo_protocol.facts import Consistency

    rule = Consistency(id="years", kind="at_most", fact="visits", other="fills")
    strict = CATALOGUE.model_copy(update={"consistency": (rule,)})
    frames = tables()
    frames["visit_occurrence"] = pl.concat([
        at(frames["visit_occurrence"], "visit_start_date", LONG_AGO, 1),
        frames["visit_occurrence"].with_columns(pl.col("visit_occurrence_id") + 100),
        frames["visit_occurrence"].with_columns(pl.col("visit_occurrence_id") + 200),
    ])  # fmt: skip
    report = inspect(omop(tmp_path, frames), strict, LABELS, today=TODAY).quality
    assert report.records[0] == 75.0
