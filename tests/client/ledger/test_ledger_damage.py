"""A flipped byte or a cut file is detected or changes nothing: never, silently, a smaller spend."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from ledger_kit import CAPS, FULL, PLAN, again, fresh, releases

from cameo_client.ledger import Head
from cameo_protocol.errors import OperatorError

Seen = tuple[Head, float, float]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """In memory where there is such a place: tens of thousands of opens."""
    memory = Path("/dev/shm")
    folder = memory / f"cameo-{tmp_path.name}" if memory.is_dir() else tmp_path / "damage"
    folder.mkdir()
    yield folder / "heart.ledger"  # type: ignore[misc]
    shutil.rmtree(folder)


def small_ledger(path: Path) -> bytes:
    with fresh(path) as ledger:
        ledger.reserve("run-1", PLAN, releases(10), CAPS)
        for round_no in range(3):
            ledger.commit("run-1", round_no, "train", releases(1))
        ledger.close("run-1")
        ledger.reserve("run-2", PLAN, releases(5), CAPS)
    return path.read_bytes()


def seen(path: Path) -> Seen | str:
    """What the ledger says, or the code of the error with which it refuses to say anything."""
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
    try:
        with again(path) as ledger:
            return ledger.head(), ledger.spent(), ledger.held()
    except OperatorError as error:
        return error.code


def offsets(sound: bytes) -> Iterable[int]:
    """Every byte in full; by default every byte that says something, and a sample of the unused ones."""
    return (i for i in range(len(sound)) if FULL or sound[i] or i % 16 == 0)


@pytest.mark.parametrize("mask", [1 << bit for bit in range(8)] + [0xFF] if FULL else [0x01, 0xFF])
def test_every_byte_flipped(path: Path, mask: int) -> None:
    sound = small_ledger(path)
    expected = seen(path)
    found: dict[str, int] = {}
    for offset in offsets(sound):
        damaged = bytearray(sound)
        damaged[offset] ^= mask
        path.write_bytes(damaged)
        got = seen(path)
        assert got in (expected, "ledger-corrupt"), (offset, got)
        found[str(got)[:14]] = found.get(str(got)[:14], 0) + 1
    assert found["ledger-corrupt"] > 1000


def test_every_truncation(path: Path) -> None:
    sound = small_ledger(path)
    for length in range(0, len(sound), 1 if FULL else 7):
        path.write_bytes(sound[:length])
        assert seen(path) == "ledger-corrupt", length


def test_every_pair_of_swapped_sectors_and_every_zeroed_one(path: Path) -> None:
    sound = small_ledger(path)
    expected = seen(path)
    size = 512
    blocks = [sound[i : i + size] for i in range(0, len(sound), size)]
    for i in range(len(blocks)):
        for j in range(i, len(blocks)):
            changed = list(blocks)
            if i == j:
                changed[i] = bytes(size)
            else:
                changed[i], changed[j] = blocks[j], blocks[i]
            path.write_bytes(b"".join(changed))
            assert seen(path) in (expected, "ledger-corrupt"), (i, j)


def test_a_committed_entry_is_in_the_main_file_before_commit_returns(path: Path) -> None:
    """SQLite forgets the damaged end of a WAL without a word, so no spend may rest in one when bytes leave."""
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(10), CAPS)
    copy = path.with_name("copy")
    for round_no in range(3):
        receipt = ledger.commit("run-1", round_no, "train", releases(1))
        assert path.with_name(path.name + "-wal").stat().st_size == 0
        copy.write_bytes(path.read_bytes())
        with again(copy) as other:
            assert other.head() == receipt.head


def test_power_lost_at_any_point_of_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prefix of what a commit writes, to the WAL and then to the main file, is the state before or after."""
    with fresh(path) as ledger:
        ledger.reserve("run-1", PLAN, releases(10), CAPS)
        ledger.commit("run-1", 0, "train", releases(1))
    main_before = path.read_bytes()
    ledger = again(path)
    before = ledger.head()
    with monkeypatch.context() as patch:
        patch.setattr("cameo_client.ledger.store.Store.settle", lambda _: None)  # the power fails before it
        after = ledger.commit("run-1", 1, "train", releases(1)).head
    wal = path.with_name(path.name + "-wal").read_bytes()
    copy = path.with_name("copy")

    def opened(main: bytes, log: bytes) -> Head:
        copy.write_bytes(main)
        copy.with_name("copy-wal").write_bytes(log)
        copy.with_name("copy-shm").unlink(missing_ok=True)
        with again(copy) as found:
            return found.head()

    steps = range(0, len(wal) + 1, 1 if FULL else 61)
    heads = [opened(main_before, wal[:length]) for length in steps]
    assert heads == sorted(heads)  # once the entry is there it stays
    assert set(heads) <= {before, after}
    assert opened(main_before, wal) == after
    ledger._store.settle()
    main_after = path.read_bytes()
    assert opened(main_after, b"") == after
    for length in range(0, len(main_after) + 1, 512):
        # The WAL is emptied only when the main file is safe, so it is whole while the main file is torn.
        assert opened(main_after[:length] + main_before[length:], wal) == after
