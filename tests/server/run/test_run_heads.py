"""Heads of ledgers on the coordinator's disk: shared by runs, never going back, and nothing made up."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import OperatorError
from cameo_protocol.heads import LedgerHead
from cameo_protocol.plan import RunPlan, Site
from cameo_server.run.heads import Heads

KEYS = {i: Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2, 3)}


class Roster:
    """As much of a plan as heads need."""

    class cohort:
        sites = tuple(
            Site(name=f"h{i}", index=i, identity=key.public_key().public_bytes_raw().hex()) for i, key in KEYS.items()
        )


PLAN: RunPlan = Roster()  # type: ignore[assignment]


def head(site: int, entries: int, dataset: int = 0, told: int = 1) -> bytes:
    return LedgerHead(dataset=bytes([dataset]) * 32, entries=entries, last=bytes(32), told=told, audit=bytes(32)).seal(
        KEYS[site]
    )


def test_the_newest_is_kept_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    first = Heads(PLAN, path)
    first.take({1: head(1, 5), 2: head(2, 7)})
    first.take({1: head(1, 4), 2: head(3, 9), 9: head(1, 50)})
    assert first.all() == Heads(PLAN, path).all() == {1: head(1, 5), 2: head(2, 7)}


def test_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    one, two = Heads(PLAN, path), Heads(PLAN, path)
    one.take({1: head(1, 5)})
    two.take({2: head(2, 7), 1: head(1, 3)})
    assert Heads(PLAN, path).all() == two.all() == {1: head(1, 5), 2: head(2, 7)}
    one.take({1: head(1, 6)})
    two.take({3: head(3, 1)})
    assert Heads(PLAN, path).all() == {1: head(1, 6), 2: head(2, 7), 3: head(3, 1)}


def test_a_run_says_what_another_run_has_heard_meanwhile(tmp_path: Path) -> None:
    """Otherwise hospitals that took part in the other one would refuse this one's heads as old."""
    one, two = Heads(PLAN, tmp_path / "heads.json"), Heads(PLAN, tmp_path / "heads.json")
    one.take({1: head(1, 5)})
    two.take({1: head(1, 6)})
    assert one.all() == {1: head(1, 6)}
    assert one.rows() == ((KEYS[1].public_key().public_bytes_raw(), head(1, 6)),)


def _many(path: Path, site: int) -> None:
    heads = Heads(PLAN, path)
    for entries in range(1, 30):
        heads.take({site: head(site, 1, entries % 12, told=entries)})


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_many, args=(path, site)) for site in KEYS]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(Heads(PLAN, path).rows()) == 3 * 12
    assert Heads(PLAN, path).all() == {site: head(site, 1, 5, told=29) for site in KEYS}


def test_a_data_set_that_a_hospital_left_for_another_one_is_remembered(tmp_path: Path) -> None:
    heads = Heads(PLAN, tmp_path / "heads.json")
    heads.take({1: head(1, 50, 1, told=7)})
    heads.take({1: head(1, 2, 2, told=8)})
    assert heads.all() == {1: head(1, 2, 2, told=8)}
    heads.take({1: head(1, 3, 1, told=9)})
    assert heads.all() == {1: head(1, 50, 1, told=7)}, "of the data set that it serves now, as far as it ever was"
    assert len(Heads(PLAN, tmp_path / "heads.json").rows()) == 2


def test_former_identities_are_said_along_and_only_theirs() -> None:
    old, stranger = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (8, 9))
    keys = [key.public_key().public_bytes_raw() for key in (old, stranger)]
    heads = Heads(PLAN, former={"h2": (keys[0].hex(),), "gone": (keys[1].hex(),)})
    told = [
        LedgerHead(dataset=bytes(32), entries=4, last=bytes(32), told=1, audit=bytes(32)).seal(k)
        for k in (old, stranger)
    ]
    heads.take({}, zip(keys, told, strict=True))
    assert heads.rows() == ((keys[0], told[0]),)
    assert heads.former == {2: (keys[0],)}
    assert heads.all() == {}


def test_without_a_file_they_are_in_memory() -> None:
    heads = Heads(PLAN)
    heads.take({3: head(3, 1)})
    assert heads.all() == {3: head(3, 1)}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"zz": "00"}', b'{"00": 1}'])
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "heads.json"
    path.write_bytes(content)
    with pytest.raises(OperatorError) as refused:
        Heads(PLAN, path)
    assert refused.value.code == "heads-unreadable"


def test_a_log_that_goes_on_or_is_lost_under_new_keys_is_told_apart(tmp_path: Path) -> None:
    """A hospital that leaves and joins again takes its audit log with it; leaving is no way to be rid of it."""
    old = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)

    def told(key: Ed25519PrivateKey, count: int, audit: int) -> bytes:
        values = {"dataset": bytes(32), "entries": 1, "last": bytes(32)}
        return LedgerHead(**values, told=count, audit=bytes([audit]) * 32).seal(key)

    public = old.public_key().public_bytes_raw()
    heads = Heads(PLAN, tmp_path / "heads.json", former={"h1": (public.hex(),), "elsewhere": (public.hex(),)})
    heads.take({}, [(public, told(old, 5, 50))])
    assert not heads.cut(1, told(KEYS[1], 6, 60)), "it goes on"
    assert not heads.cut(1, told(KEYS[1], 5, 50)), "nothing new was told"
    assert heads.cut(1, told(KEYS[1], 1, 10)), "begun anew"
    assert heads.cut(1, told(KEYS[1], 5, 51)), "another log"
    assert not heads.cut(2, told(KEYS[2], 1, 10)), "another hospital"
    heads.take({1: told(KEYS[1], 6, 60)})
    assert heads.cut(1, told(KEYS[1], 6, 61))
