"""`cameo bench secagg` on a small federation: the shape of its JSON, and that what it measures is right."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
from typer.testing import CliRunner

from cameo_lab.bench import secagg, secagg_flower, secagg_ours
from cameo_lab.bench.cli import bench
from cameo_protocol.errors import Bug

N, D = 5, 3000
ALWAYS = {
    "client_vs_flower",
    "client_vs_flower_n10",
    "server_vs_flower",
    "server_vs_flower_dropouts",
    "kernel_vs_keystream",
    "bytes_per_coordinate",
}


@pytest.fixture(scope="module")
def found() -> dict:
    done = CliRunner().invoke(bench, ["secagg", "--json", "--n", str(N), "--d", str(D)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) | {"said": done.stderr}


def test_every_ratio_of_the_table_is_there(found) -> None:
    assert {"client_vs_ckks", *ALWAYS} <= found["ratios"].keys()
    assert all(found["ratios"][name] > 0 for name in ALWAYS)
    assert found["schema_version"] == 1
    assert (found["n"], found["d"], found["deployed"]) == (N, D, None)


def test_ratios_follow_from_the_seconds_that_are_told(found) -> None:
    seconds = found["cpu_seconds"]
    for key, ratio in (("client", "client_vs_flower"), ("client_n10", "client_vs_flower_n10")):
        ours, theirs = seconds[key]["ours"], seconds[key]["flower"]
        for stages in (ours, theirs):
            assert stages["total"] == pytest.approx(sum(v for k, v in stages.items() if k != "total"), abs=1e-5)
        assert found["ratios"][ratio] == pytest.approx(theirs["total"] / ours["total"], rel=0.05)
    assert set(seconds["client"]["ours"]) == {"encode", "upload", "ack", "reveal", "setup_share", "total"}
    assert set(seconds["client"]["flower"]) == {"setup", "share_keys", "collect_masked_vectors", "unmask", "total"}


def test_progress_goes_to_stderr_and_says_what_is_measured_once(found) -> None:
    assert "Flower's server" in found["said"]
    assert "INFO" not in found["said"]
    assert found["repeats"] == {"ours": 7, "flower_client": 3, "flower_server": 1, "others": 7}


def test_all_upload_bytes_are_counted(found) -> None:
    """4 bytes a lane, and header, ack, reveal and a hundredth of the set-up, which 3,000 lanes must bear."""
    least = 4 + 32 * N / D
    assert least < found["ratios"]["bytes_per_coordinate"] < 5
    assert found["bytes_per_coordinate"] == found["ratios"]["bytes_per_coordinate"]
    world = secagg_ours.build(N, D)
    sent = secagg_ours.measure_client(world, 1).round_bytes
    per_lane = (sent + world.setup_bytes / secagg_ours.ROUNDS) / D
    assert per_lane == pytest.approx(found["bytes_per_coordinate"], abs=0.01)


def test_without_tenseal_there_is_a_note_and_no_ratio(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tenseal", None)
    seconds, note = secagg._ckks(np.zeros(10), lambda _: None)
    assert seconds is None
    assert "pip install tenseal" in note


def test_a_wrong_sum_of_ours_is_no_result(monkeypatch) -> None:
    world = secagg_ours.build(4, 50)
    monkeypatch.setattr(secagg_ours.client_round, "apply_streams", lambda *_, **__: None)
    with pytest.raises(Bug, match="not the plain sum"):
        secagg_ours.measure_server(world, 3, [], 1)


@pytest.mark.parametrize("lost", [[], [2]])
def test_a_wrong_mean_of_flowers_is_no_result(monkeypatch, lost) -> None:
    values = np.linspace(-1, 1, 20)
    assert secagg_flower.measure_server(4, values, lost) > 0
    real = secagg_flower._masked_total

    def altered(*given):
        total, quantised = real(*given)
        return total, quantised + 5

    monkeypatch.setattr(secagg_flower, "_masked_total", altered)
    with pytest.raises(Bug, match="not the plain mean"):
        secagg_flower.measure_server(4, values, lost)


def test_the_tenth_that_drops_out() -> None:
    assert [len(secagg_ours.tenth(n)) for n in (3, 10, 19, 100)] == [1, 1, 1, 10]
    assert all(b - a == 1 for a, b in pairwise(secagg_ours.tenth(100)))
    assert secagg_ours.ME not in secagg_ours.tenth(100)


def test_the_measured_journal_refuses_a_second_time() -> None:
    journal = secagg_ours.MemoryJournal()
    journal.record(b"T", 0, "upload", b"")
    with pytest.raises(Exception, match="has left already"):
        journal.record(b"T", 0, "upload", b"x")


def test_people_get_a_table(found) -> None:
    text = secagg.table(found)
    assert all(name in text for name in found["ratios"])
    deployed = {
        "hospitals": 4,
        "round_s": 1.5,
        "stages_s": {"upload": 1.0, "ack": 0.25, "reveal": 0.25},
        "slowest_hospital_s": {"upload": 0.02, "ack": 0.01, "reveal": 0.01},
        "elsewhere_s": 1.444,
    }
    text = secagg.table({**found, "deployed": deployed})
    assert "of which a hospital 0.020" in text
    assert "own work: 1.444" in text


@pytest.mark.parametrize("given", [["--n", "2"], ["--n", "256"], ["--d", "1"], ["--d", "x"]])
def test_sizes_it_does_not_take(given) -> None:
    assert CliRunner().invoke(bench, ["secagg", *given]).exit_code == 2
