"""What a demo needs before anything starts, and the folder it may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from cameo_lab.demo.driver import MARK, _folder
from cameo_lab.demo.setting import HEART_SITES, DemoOptions, overrides, prepare
from cameo_protocol.errors import ExitCode, OperatorError


def test_heart_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (None, tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(OperatorError) as refused:
            prepare(DemoOptions(data="heart", data_dir=source), tmp_path / "out")
        assert refused.value.code == "demo-data-missing"
        assert refused.value.exit_code == ExitCode.DATA == 6


def test_one_missing_heart_file_is_enough(tmp_path: Path) -> None:
    for name in HEART_SITES:
        (tmp_path / f"processed.{name}.data").write_text("")
    assert len(prepare(DemoOptions(data="heart", data_dir=tmp_path), tmp_path / "out").sites) == 4
    (tmp_path / "processed.va.data").unlink()
    with pytest.raises(OperatorError, match=r"processed\.va\.data"):
        prepare(DemoOptions(data="heart", data_dir=tmp_path), tmp_path / "out")


def test_preparing_twice_gives_the_same_consents_and_keys(tmp_path: Path) -> None:
    for name in HEART_SITES:
        (tmp_path / f"processed.{name}.data").write_text("")
    options = DemoOptions(data="heart", data_dir=tmp_path)
    one, two = (prepare(options, tmp_path / out) for out in ("one", "two"))
    for a, b in zip(one.sites, two.sites, strict=True):
        assert a.consents.read_bytes() == b.consents.read_bytes()
        assert a.pseudonym_key.read_bytes() == b.pseudonym_key.read_bytes()
        assert a.pseudonym_key.stat().st_mode & 0o777 == 0o600
    assert len({site.pseudonym_key.read_bytes() for site in one.sites}) == 4
    assert not one.synthetic


def test_made_up_hospitals_lie_in_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cameo_lab.demo.setting.SYNTHETIC_PATIENTS", 30)
    made = prepare(DemoOptions(), tmp_path / "out")
    assert made.synthetic
    assert "data.population=120" in made.overrides
    assert [(site.kind, site.mapping, Path(site.data).name) for site in made.sites] == [
        ("omop", "cardiometabolic-omop", "cdm.duckdb")
    ] * 4
    assert all(Path(site.data).is_file() and site.consents.is_file() for site in made.sites)


def test_options_become_overrides() -> None:
    assert overrides(DemoOptions(), "heart")[1:] == ("data=heart", "privacy=distributed", "risk=logistic")
    chosen = overrides(DemoOptions(rounds=5, epsilon=0.5, privacy="local", risk_model="mlp"), "heart")
    assert chosen[1:] == ("data=heart", "privacy=local", "risk=mlp", "training.rounds=5", "privacy.epsilon=0.5")


def test_a_folder_that_is_not_a_demos_is_refused_and_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("precious")
    with pytest.raises(OperatorError) as refused:
        _folder(tmp_path)
    assert refused.value.code == "demo-folder"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_demos_own_folder_is_emptied(tmp_path: Path) -> None:
    out = _folder(tmp_path / "a" / "demo")
    (out / "old").mkdir()
    assert _folder(out) == out
    assert [path.name for path in out.iterdir()] == [MARK]


def test_a_folder_below_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError) as refused:
        _folder(tmp_path / "file" / "demo")
    assert refused.value.code == "disk-write"
