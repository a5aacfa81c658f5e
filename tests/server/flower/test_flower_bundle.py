"""The bundle of a run."""

import io
import zipfile
from pathlib import Path

import pytest

from cameo_protocol.errors import OperatorError
from cameo_server.flower.bundle import RUN_KEYS, build_bundle


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "privacy").mkdir()
    (tmp_path / "experiment.yaml").write_text("seed: 1\n")
    (tmp_path / "privacy" / "local.yaml").write_text("mode: local\n")
    (tmp_path / "secret.pem").write_text("key")
    (tmp_path / "patients.csv").write_text("4711")
    return tmp_path


def test_it_holds_configuration_and_a_shim_and_nothing_else(conf: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(build_bundle(conf))) as bundle:
        assert set(bundle.namelist()) == {
            "pyproject.toml", "cameo_run.py", "conf/experiment.yaml", "conf/privacy/local.yaml", ".info/CONTENT",
        }  # fmt: skip
        assert bundle.read("conf/privacy/local.yaml") == b"mode: local\n"
        assert b"from cameo_server.app import app as app" in bundle.read("cameo_run.py")
        assert len(bundle.read("cameo_run.py").splitlines()) == 4


def test_the_same_files_give_the_same_bytes(conf: Path) -> None:
    first = build_bundle(conf)
    (conf / "experiment.yaml").touch()
    assert build_bundle(conf) == first
    (conf / "experiment.yaml").write_text("seed: 2\n")
    assert build_bundle(conf) != first


def test_flower_reads_it_and_knows_the_run_keys(conf: Path) -> None:
    from flwr.cli.config_utils import get_fab_config, get_fab_metadata

    bundle = build_bundle(conf)
    assert get_fab_metadata(bundle)[0] == "cameo/cameo-run"
    assert get_fab_config(bundle)["tool"]["flwr"]["app"]["config"] == dict.fromkeys(RUN_KEYS, "")


def test_a_folder_without_configuration_still_makes_a_bundle(tmp_path: Path) -> None:
    assert build_bundle(tmp_path / "none")


def test_one_that_cannot_be_packed(conf: Path) -> None:
    (conf / "experiment.yaml").write_bytes(bytes(2 << 20))
    (conf / "link.yaml").symlink_to("nowhere")
    with pytest.raises(OperatorError) as error:
        build_bundle(conf)
    assert error.value.code == "bundle-unbuildable"
