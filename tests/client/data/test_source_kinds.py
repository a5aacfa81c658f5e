"""node.toml's kinds of source on the real command line: init, describe and check, and what no command may show."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from cameo_client.home import DataConfig, NodeHome, load_config
from cameo_client.source import configured, read
from cameo_lab.generate.generator import Format, Generated, generate, source_of
from cameo_lab.local_postgres import copy_tables, local_postgres
from cameo_protocol.errors import OperatorError

NODE = str(Path(sysconfig.get_path("scripts")) / "cameo-node")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    every: tuple[Format, ...] = ("table", "duckdb", "fhir")
    return generate(tmp_path_factory.mktemp("made") / "x", 1, 150, 7, formats=every)


def node(*words: str, **env: str) -> tuple[int, str, str]:
    done = subprocess.run([NODE, *words], capture_output=True, text=True, check=False, env={"PATH": "/usr/bin", **env})
    return done.returncode, done.stdout, done.stderr


def init(home: Path, kind: str, data: str, mapping: str, *more: str) -> tuple[int, str, str]:
    words = ("--name", "h", "--source", kind, "--data", data, "--mapping", mapping)
    return node("init", *words, *more, "--home", str(home))


def described(home: Path, **env: str) -> dict[str, Any]:
    code, out, err = node("data", "describe", "--json", "--home", str(home), **env)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_same_commands_on_every_kind(made: Generated, tmp_path: Path) -> None:
    site, seen = made.sites[0], []
    for form in made.formats:
        kind, mapping = source_of(form)
        home = tmp_path / form
        assert init(home, kind, str(site.place(form)), mapping)[0] == 0
        told = described(home)
        assert (told["kind"], told["synthetic"]) == (kind, True)
        assert set(told["labels"]) == {"t2d_12m", "insulin_3m", "lapse"}
        seen.append((told["quality"]["score"], told["quality"]["patients"]))
    assert len(set(seen)) == 1
    assert node("data", "check", "--home", str(home))[0] == 0


def test_postgresql_with_its_password_in_a_file_or_a_variable(made: Generated, tmp_path: Path) -> None:
    """The server trusts its socket, so what is shown is that the password goes nowhere but to libpq."""
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    with local_postgres() as url:
        copy_tables(made.sites[0].place("duckdb"), url, "cdm")
        address = f"{url}&options=-csearch_path%3Dcdm"
        for name, more in (("file", ("--password-file", str(secret))), ("variable", ("--password-env", "CDM"))):
            home = tmp_path / name
            assert init(home, "omop", address, "cardiometabolic-omop", *more)[0] == 0
            assert described(home, CDM="hunter2")["quality"]["ready"] is True
            assert not [p for p in home.rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]
        code, _, err = node("data", "describe", "--home", str(tmp_path / "variable"))
        assert (code, "data-secret-missing" in err, "hunter2" in err) == (6, True, False)
        secret.chmod(0o644)
        code, _, err = node("data", "check", "--home", str(tmp_path / "file"))
        assert (code, "data-secret-open" in err, "chmod 600" in err) == (6, True, True)
    code, _, err = node("data", "check", "--home", str(tmp_path / "variable"), CDM="hunter2")
    assert (code, "data-connect" in err, "hunter2" in err) == (6, True, False)


@pytest.mark.parametrize(("words", "code"), [
    (("omop", "postgresql://a:hunter2@b/c", "cardiometabolic-omop"), "option-invalid"),
    (("omop", "postgresql://a@b/c?password=hunter2", "cardiometabolic-omop"), "option-invalid"),
    (("omop", "x.csv", "cardiometabolic"), "source-kind"), (("table", "x", "cardiometabolic-omop"), "source-kind"),
    (("fhir", "x", "cardiometabolic-omop"), "source-kind"), (("table", "x", "nothing"), "definition-missing"),
    (("table", "postgresql://a@b/c", "cardiometabolic"), "source-kind"),
    (("omop", "x", "other.yaml"), "definition-unreadable"),
    (("omop", "x", "cardiometabolic-omop", "--password-env", "X"), "option-invalid"),
    (("omop", "postgresql://a@b/c", "cardiometabolic-omop", "--password-env", "a b"), "option-invalid"),
])  # fmt: skip
def test_bad_options_are_refused_before_a_key_is_made(words: tuple[str, ...], code: str, tmp_path: Path) -> None:
    kind, data, mapping, *more = words
    status, out, err = init(tmp_path / "home", kind, data, mapping, *more)
    assert (status, code in err, "next:" in err, out) == (2, True, True, "")
    assert "hunter2" not in err
    assert not (tmp_path / "home").exists()


def test_a_mapping_is_needed() -> None:
    with pytest.raises(OperatorError, match="source-unmapped"):
        configured(DataConfig(kind="omop", path="/x"))


def test_a_password_in_node_toml_is_refused_and_not_shown(made: Generated, tmp_path: Path) -> None:
    home = NodeHome(tmp_path / "h")
    assert init(home.root, "omop", str(made.sites[0].place("duckdb")), "cardiometabolic-omop")[0] == 0
    text = home.config.read_text()
    path = load_config(home).data.path
    home.config.write_text(text.replace(path, "postgresql://a:hunter2@b/c"))
    with pytest.raises(OperatorError, match="config-invalid") as caught:
        load_config(home)
    assert "hunter2" not in f"{caught.value} {caught.value.do}"
    home.config.write_text(text)
    found, data = read(home)
    assert data.facts.height > 140
    assert {label.id for label in found.labels} == {"t2d_12m", "insulin_3m", "lapse"}
