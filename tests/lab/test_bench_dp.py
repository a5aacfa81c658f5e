"""`cameo bench dp` compares like with like: every way computes the same sum, and the figures are ratios of one run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cameo_lab.bench import dp
from cameo_lab.cli import app


@pytest.fixture(autouse=True)
def short_samples(monkeypatch):
    monkeypatch.setattr(dp, "_SECONDS", 1e-4)
    monkeypatch.setattr(dp, "DEEP_BATCH", 64)


def sums(case):
    """What Opacus' hooks and ours add up on the same batch."""
    hooks = dp._hooks(case)
    hooks()
    optimizer = next(cell.cell_contents for cell in hooks.__closure__ if hasattr(cell.cell_contents, "grad_samples"))
    theirs = np.concatenate([p.summed_grad.detach().flatten().numpy() for p in optimizer.params])
    ours = case.ours()
    return theirs, ours if isinstance(ours, np.ndarray) else np.concatenate([p.detach().flatten() for p in ours])


@pytest.mark.parametrize("index", range(3))
def test_ours_and_opacus_compute_the_same_sum(index):
    theirs, ours = sums(dp.cases(200)[index])
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_every_way_runs_and_only_known_layers_have_ghost_clipping():
    for case in dp.cases(100):
        ways = dp.steps(case)
        assert ways.keys() == {"plain", "opacus_hooks", "ours"} | ({"opacus_ghost"} if case.ghost else set())
        for step in ways.values():
            step()


def test_a_ratio_is_plain_over_the_other_and_the_worst_shipped_model_counts():
    each = {"plain": 10.0, "ours": 20.0, "opacus_hooks": 100.0}
    us = {name: dict(each) for name in ("logistic", "mlp", "prototypes")}
    us["mlp"]["ours"] = 40.0
    us["mlp_64_64_64_1"] = {"plain": 8.0, "ours": 80.0, "opacus_hooks": 200.0, "opacus_ghost": 16.0}
    ratios = dp._ratios(us)
    assert ratios["throughput_vs_plain"] == ratios["mlp_vs_plain"] == 0.25
    assert ratios["logistic_vs_plain"] == 0.5
    assert ratios["opacus_hooks_vs_plain"] == 0.04
    assert ratios["opacus_ghost_vs_plain"] == 0.5


def test_the_command_prints_one_object_and_leaves_the_threads_alone():
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, ["bench", "dp", "--samples", "3", "--patients", "100", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["schema_version"] == 1
    assert {"throughput_vs_plain", "logistic_vs_plain", "mlp_vs_plain", "prototypes_vs_plain"} <= found["ratios"].keys()
    assert found["ratios"]["throughput_vs_plain"] > 0
    assert found["cpu_us_a_step"]["one_thread"].keys() == found["cpu_us_a_step"]["default_threads"].keys()
    assert found["cpu_us_a_step"]["default_threads"]["mlp"].keys() == {"plain", "ours"}
    assert torch.get_num_threads() == threads
    assert "throughput" in dp.table(found)
