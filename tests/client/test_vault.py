"""The vault: envelope encryption at rest, where its key lies, and a new key."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cameo_client import vault as vaults
from cameo_client.home import NodeHome
from cameo_client.vault import CREDENTIAL, KEY, OVERHEAD, Kek, Vault
from cameo_protocol.errors import OperatorError

NONE: dict[str, str] = {}


def vault(one: int = 1, former: Kek | None = None) -> Vault:
    return Vault(Kek(bytes([one]) * KEY), former)


def code(error: pytest.ExceptionInfo[OperatorError]) -> str:
    return error.value.code


def test_what_is_sealed_opens_under_its_name_only() -> None:
    sealed = vault().seal("a.bin", b"secret")
    assert len(sealed) == OVERHEAD + 6
    assert b"secret" not in sealed
    assert vault().unseal("a.bin", sealed) == b"secret"
    with pytest.raises(OperatorError) as error:
        vault().unseal("b.bin", sealed)
    assert code(error) == "vault-damaged"


def test_two_seals_share_neither_key_nor_nonce() -> None:
    one, other = vault().seal("a", b"same"), vault().seal("a", b"same")
    head = len(vaults.MAGIC) + vaults.ID
    assert one[:head] == other[:head]
    assert one[head : head + 30] != other[head : head + 30]
    assert one[-20:] != other[-20:]


def test_every_changed_or_missing_byte_is_seen() -> None:
    sealed = vault().seal("a", b"secret")
    for place in range(len(sealed)):
        broken = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with pytest.raises(OperatorError) as error:
            vault().unseal("a", broken)
        assert code(error) in ("vault-damaged", "vault-key-wrong")
        with pytest.raises(OperatorError):
            vault().unseal("a", sealed[:place])


def test_another_key_is_said_to_be_another_key() -> None:
    with pytest.raises(OperatorError) as error:
        vault(2).unseal("a", vault(1).seal("a", b"secret"))
    assert code(error) == "vault-key-wrong"


def test_rewrap_changes_the_key_and_not_the_body() -> None:
    old = vault(1)
    sealed = old.seal("a", b"secret")
    both = vault(2, former=old.current)
    assert both.stale(sealed)
    assert both.unseal("a", sealed) == b"secret"
    moved = both.rewrap("a", sealed)
    assert not both.stale(moved)
    assert moved[-18:] == sealed[-18:]
    assert vault(2).unseal("a", moved) == b"secret"
    with pytest.raises(OperatorError):
        old.unseal("a", moved)


def test_the_key_never_prints() -> None:
    assert repr(vault()).startswith("Vault(current=Kek(), former=None")


def test_the_first_opening_makes_a_key_for_its_owner_alone(tmp_path: Path) -> None:
    sealed = Vault.open(tmp_path, NONE).seal("a", b"x")
    assert stat.S_IMODE((tmp_path / "keys" / "kek.key").stat().st_mode) == 0o600
    assert Vault.open(NodeHome(tmp_path), NONE).unseal("a", sealed) == b"x"


def test_a_lost_key_is_never_replaced_by_a_new_one(tmp_path: Path) -> None:
    Vault.open(tmp_path, NONE)
    key = tmp_path / "keys" / "kek.key"
    key.unlink()
    with pytest.raises(OperatorError) as error:
        Vault.open(tmp_path, NONE)
    assert code(error) == "vault-key-missing"
    assert not key.exists()
    key.write_text("11" * KEY)
    key.chmod(0o600)
    with pytest.raises(OperatorError) as error:
        Vault.open(tmp_path, NONE)
    assert code(error) == "vault-key-wrong"


@pytest.mark.parametrize(
    ("text", "mode", "expected"), [("zz", 0o600, "key-broken"), ("11" * KEY, 0o644, "key-exposed")]
)
def test_a_bad_key_file_is_refused(tmp_path: Path, text: str, mode: int, expected: str) -> None:
    key = tmp_path / "keys" / "kek.key"
    key.parent.mkdir()
    key.write_text(text)
    key.chmod(mode)
    with pytest.raises(OperatorError) as error:
        Vault.open(tmp_path, NONE)
    assert code(error) == expected


def test_a_systemd_credential_goes_first(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / CREDENTIAL).write_bytes(b"k" * KEY)
    environ = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert Vault.open(tmp_path / "home", environ).current.raw == b"k" * KEY
    with pytest.raises(OperatorError) as error:
        Vault.open(tmp_path / "home", NONE)
    assert code(error) == "vault-key-missing", "without systemd no new key is made"
    with pytest.raises(OperatorError) as error:
        vaults.rotate(NodeHome(tmp_path / "home"), environ)
    assert code(error) == "vault-credential"


def test_node_toml_names_a_key_on_another_volume(tmp_path: Path) -> None:
    home, volume = tmp_path / "home", tmp_path / "volume"
    home.mkdir()
    text = f'version = 1\nsite = "a"\ncreated = "2026-01-01T00:00:00Z"\nkek_file = "{volume / "kek"}"\n'
    (home / "node.toml").write_text(text + '[data]\nkind = "table"\npath = "x.csv"\n')
    with pytest.raises(OperatorError) as error:
        Vault.open(home, NONE)
    assert code(error) == "vault-key-missing", "a volume that is not mounted gets no key"
    volume.mkdir()
    (volume / "kek").write_text("ab" * KEY + "\n")
    (volume / "kek").chmod(0o600)
    assert Vault.open(home, NONE).current.raw == b"\xab" * KEY


def test_a_new_key_loses_nothing_and_the_old_one_ends(tmp_path: Path) -> None:
    home = NodeHome(tmp_path)
    sealed = Vault.open(home, NONE).seal("a", b"x")
    fresh = vaults.rotate(home, NONE)
    assert vaults.rotate(home, NONE).current.raw == fresh.current.raw, "a rotation that broke off goes on"
    moved = Vault.open(home, NONE).rewrap("a", sealed)
    vaults.finish(home, NONE)
    assert not (tmp_path / "keys" / "kek.key.old").exists()
    assert Vault.open(home, NONE).unseal("a", moved) == b"x"
    with pytest.raises(OperatorError) as error:
        Vault.open(home, NONE).unseal("a", sealed)
    assert code(error) == "vault-key-wrong"


def test_a_rotation_may_break_off_at_any_point(tmp_path: Path) -> None:
    """Keys swapped, but kek.id not yet written, as with a new credential: either key opens the home, then the new."""
    sealed = Vault.open(tmp_path, NONE).seal("a", b"x")
    marker = (tmp_path / "kek.id").read_bytes()
    vaults.rotate(NodeHome(tmp_path), NONE)
    (tmp_path / "kek.id").write_bytes(marker)
    assert Vault.open(tmp_path, NONE).unseal("a", sealed) == b"x"
    assert (tmp_path / "kek.id").read_bytes() != marker


def test_processes_that_open_at_once_share_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: Vault.open(tmp_path, NONE).current.id, range(16)))
    assert len(keys) == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["kek.key"]
