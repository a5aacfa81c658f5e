"""The folder of a run: events as they grow, arrays without pickles, and no second run under one name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cameo_protocol.errors import OperatorError
from cameo_server.run.store import RunStore, read_events


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs" / "r1", clock=lambda: 12.34567)


def test_a_run_is_created_once(store: RunStore) -> None:
    store.create(b"{}")
    assert store.plan() == b"{}"
    with pytest.raises(OperatorError) as error:
        store.create(b"other")
    assert error.value.code == "run-exists"
    assert store.plan() == b"{}"


def test_events_in_order_and_a_half_written_line_is_left_out(store: RunStore) -> None:
    assert list(store.events()) == []
    store.create(b"{}")
    store.event("start", run="r1")
    store.event("round", step=0)
    path = store.folder / "events.jsonl"
    with path.open("a") as file:
        file.write('{"event": "rou')
    assert list(read_events(path)) == [
        {"time": 12.346, "event": "start", "run": "r1"},
        {"time": 12.346, "event": "round", "step": 0},
    ]


def test_an_event_that_is_no_json_is_not_written(store: RunStore) -> None:
    store.create(b"{}")
    with pytest.raises(ValueError, match="JSON"):
        store.event("round", norm=float("nan"))
    assert list(store.events()) == []


def test_an_unwritable_folder_is_a_clear_error(store: RunStore) -> None:
    with pytest.raises(OperatorError) as error:
        store.event("start")
    assert error.value.code == "disk-write"


def test_arrays_come_back_and_pickles_do_not(store: RunStore) -> None:
    store.create(b"{}")
    total = np.array([0, 2**32 - 1], dtype=np.uint32)
    store.save_arrays("opening-0001.npz", {"total": total})
    found = store.load_arrays("opening-0001.npz")["total"]
    assert found.dtype == np.uint32
    assert np.array_equal(found, total)
    with pytest.raises(ValueError, match="Object arrays"):
        store.save_arrays("x.npz", {"o": np.array([object()])})
    assert not (store.folder / "x.npz").exists()
