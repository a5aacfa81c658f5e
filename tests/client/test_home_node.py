"""A hospital's state folder: paths, atomic files, key files that others may not read."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cameo_client import home as h
from cameo_client.home import NodeHome
from cameo_protocol.errors import ExitCode, OperatorError


def code_of(call: object, *args: object) -> str:
    with pytest.raises(OperatorError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.do
    return caught.value.code


def test_default_root_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert h.default_root() == Path("/state/cameo-node")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/eve")
    assert h.default_root() == Path("/home/eve/.local/state/cameo-node")


def test_open_home_needs_an_initialised_one(tmp_path: Path) -> None:
    assert code_of(h.open_home, tmp_path) == "no-home"


def test_a_written_file_has_its_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    h.write_file(tmp_path / "new" / "a.key", b"one", h.PRIVATE)
    h.write_file(tmp_path / "new" / "a.key", b"two", h.PRIVATE)
    assert (tmp_path / "new" / "a.key").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "new" / "a.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "new") == ["a.key"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h.write_file(tmp_path / "a", b"old")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", broken)
    assert code_of(h.write_file, tmp_path / "a", b"new") == "disk-write"
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_reading_is_bounded_and_typed(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * ((1 << 20) + 1))
    assert code_of(h.read_file, tmp_path / "big") == "file-too-long"
    assert code_of(h.read_file, tmp_path / "none") == "disk-read"
    assert code_of(h.read_file, tmp_path) == "disk-read"
    assert code_of(h.make_folder, tmp_path / "big" / "below") == "disk-write"


def test_keys_come_back_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    home = NodeHome(tmp_path)
    identity, node = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())
    h.write_file(home.identity_key, h.key_pem(identity), h.PRIVATE)
    h.write_file(home.node_key, h.key_pem(node), h.PRIVATE)
    assert h.load_identity(home).public_key() == identity.public_key()
    assert h.load_node_key(home).public_key() == node.public_key()
    h.write_file(home.identity_key, h.key_pem(node), h.PRIVATE)
    assert code_of(h.load_identity, home) == "key-broken"
    h.write_file(home.node_key, h.key_pem(ec.generate_private_key(ec.SECP256R1())), h.PRIVATE)
    assert code_of(h.load_node_key, home) == "key-broken"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    h.write_file(tmp_path / "k", b"00" * 32, mode)
    with pytest.raises(OperatorError) as caught:
        h.load_pseudonym_key(tmp_path / "k")
    assert (caught.value.code, caught.value.exit_code) == ("key-exposed", ExitCode.AUTH)


@pytest.mark.parametrize("raw", [b"", b"00" * 31, b"00" * 33, b"xy" * 32, b"\xff" * 64])
def test_a_pseudonym_key_is_64_hex_digits(tmp_path: Path, raw: bytes) -> None:
    h.write_file(tmp_path / "k", raw, h.PRIVATE)
    with pytest.raises(OperatorError) as caught:
        h.load_pseudonym_key(tmp_path / "k")
    assert caught.value.code == "key-broken"
    assert raw.decode("latin-1") not in str(caught.value) or not raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no toml",
        "\xff",
        'version = 1\nsite = "A B"\ncreated = "2026-11-24T08:00:00Z"\n[data]\nkind = "table"\npath = "x"',
        'version = 1\nsite = "a"\ncreated = "2026-11-24T08:00:00Z"\n[data]\nkind = "table"\npath = ""',
        'version = 1\nsite = "a"\ncreated = "2026-11-24T08:00:00Z"\n[data]\nkind = "table"\npath = "x"\nepsilon = 1',
    ],
)
def test_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    home = NodeHome(tmp_path)
    home.config.write_bytes(text.encode("latin-1"))
    assert code_of(h.load_config, home) == "config-invalid"


def test_toml_writes_what_toml_reads() -> None:
    values: dict[str, str | int] = {"path": 'C:\\data "x" \n\t\x7f\x00 é 漢', "n": -3}
    assert tomllib.loads(h.toml(values)) == values
