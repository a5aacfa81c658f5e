"""What `cameo plan` shows: the parts of the budget, three statements, and epsilon against rounds."""

from __future__ import annotations

import re

import pytest

from cameo_protocol.confdir import conf_dir
from cameo_protocol.plan import RunPlan, Site
from cameo_protocol.privacy.statements import statements
from cameo_server.cli.plan_text import plan_text
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import resolve


def make(*overrides: str, n: int = 4) -> RunPlan:
    experiment = compose_experiment(conf_dir(), overrides)
    sites = tuple(Site(name=f"hospital-{i}", index=i, identity=f"{i:064x}") for i in range(1, n + 1))
    return resolve(experiment, read_catalogue(experiment.data.catalogue), read_label(experiment.data.label), sites)


def rows(text: str) -> list[tuple[int, float, float, float]]:
    """The table: rounds, coordinator, outsider, bare."""
    found = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)(?:  \d+ spare)?$", text, re.M)
    return [(int(n), float(a), float(b), float(c)) for n, a, b, c in found]


@pytest.mark.parametrize("mode", ["distributed", "local"])
def test_the_table_grows_to_the_three_statements(mode: str) -> None:
    plan = make(f"privacy={mode}", "privacy.epsilon=2", "training.rounds=20", "training.spare=4")
    text, said = plan_text(plan), statements(plan)
    table = rows(text)
    assert [n for n, *_ in table] == [5, 10, 15, 20, 24]
    assert "4 spare" in text
    for column, statement in zip((1, 2, 3), (said.coord, said.model, said.bare), strict=True):
        figures = [row[column] for row in table]
        assert figures == sorted(figures)
        assert figures[-1] == pytest.approx(statement.epsilon, abs=0.01)
        assert statement.sentence in text
    assert said.scope in text


def test_every_task_shows_its_part_of_the_budget() -> None:
    plan = make()
    parts = [int(part) for part in re.findall(r"(\d+)% of the budget", plan_text(plan))]
    assert len(parts) == len(plan.tasks)
    assert sum(parts) == pytest.approx(100, abs=len(parts) / 2)
    assert "declared" in plan_text(plan)


def test_a_plan_without_spare_rounds_has_no_row_for_them() -> None:
    text = plan_text(make("training.rounds=4", "training.spare=0"))
    assert [n for n, *_ in rows(text)] == [1, 2, 3, 4]
    assert "spare\n" not in text.split("rounds, each histogram")[1]


def test_hundreds_of_rounds_and_a_large_population_are_planned_at_once() -> None:
    """Full-batch accounting is a closed form, whatever the rounds."""
    import time

    began = time.process_time()
    plan_text(make("training.rounds=400", "data.population=1000000", n=100))
    assert time.process_time() - began < 3
