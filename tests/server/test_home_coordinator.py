"""The coordinator's state folder: paths, atomic files, key files that others may not read."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_server import home as h
from cameo_server.home import CoordinatorHome


def test_default_root_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert h.default_root() == Path("/state/cameo-coordinator")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/eve")
    assert h.default_root() == Path("/home/eve/.local/state/cameo-coordinator")


def test_open_home_needs_an_initialised_one(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        h.open_home(tmp_path)
    assert caught.value.code == "no-home"
    assert "cameo coordinator init" in caught.value.do


def test_a_written_file_has_its_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    old = os.umask(0o777 & ~0o755)
    try:
        h.write_file(tmp_path / "new" / "a.key", b"one", h.PRIVATE)
        h.write_file(tmp_path / "new" / "a.key", b"two", h.PRIVATE)
    finally:
        os.umask(old)
    assert (tmp_path / "new" / "a.key").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "new" / "a.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "new") == ["a.key"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h.write_file(tmp_path / "a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OperatorError) as caught:
        h.write_file(tmp_path / "a", b"new")
    assert caught.value.code == "disk-write"
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_in_the_way_is_an_operator_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError) as caught:
        h.write_file(tmp_path / "file" / "a", b"")
    assert caught.value.code == "disk-write"


def test_reading_is_bounded_and_typed(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(OperatorError) as caught:
        h.read_file(tmp_path / "big", at_most=10)
    assert caught.value.code == "file-too-long"
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OperatorError) as caught:
            h.read_file(path)
        assert caught.value.code == "disk-read"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    h.write_file(path, h.key_pem(ed25519.Ed25519PrivateKey.generate()), h.PRIVATE)
    h.load_ed25519(path)
    path.chmod(mode)
    with pytest.raises(OperatorError) as caught:
        h.load_ed25519(path)
    assert (caught.value.code, caught.value.exit_code) == ("key-exposed", ExitCode.AUTH)


def test_a_key_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    edwards, weierstrass, text = tmp_path / "ed", tmp_path / "ec", tmp_path / "text"
    h.write_file(edwards, h.key_pem(ed25519.Ed25519PrivateKey.generate()), h.PRIVATE)
    h.write_file(weierstrass, h.key_pem(ec.generate_private_key(ec.SECP256R1())), h.PRIVATE)
    h.write_file(text, b"no key", h.PRIVATE)
    for load, path in ((h.load_ec, edwards), (h.load_ed25519, weierstrass), (h.load_ec, text), (h.load_ed25519, text)):
        with pytest.raises(OperatorError) as caught:
            load(path)
        assert caught.value.code == "key-broken"


@pytest.mark.parametrize("text", ["version = 1", "version = 2\n", "not toml", "\xff", 'federation = "a"\nextra = 1'])
def test_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    home = CoordinatorHome(tmp_path)
    home.config.write_bytes(text.encode("latin-1"))
    with pytest.raises(OperatorError) as caught:
        h.load_config(home)
    assert caught.value.code == "config-invalid"


def test_toml_writes_what_toml_reads() -> None:
    values: dict[str, str | int] = {"a": 'quote " backslash \\ newline \n tab \t é 漢', "n": -3}
    assert tomllib.loads(h.toml(values)) == values
