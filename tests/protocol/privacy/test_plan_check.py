"""A hospital recomputes a plan's claim and refuses what does not hold."""

from __future__ import annotations

import pytest
from privacy_plans import make_plan

from cameo_protocol.errors import Reject
from cameo_protocol.plan import RunPlan
from cameo_protocol.privacy.plan_check import check_plan


def code_of(plan: RunPlan) -> str:
    with pytest.raises(Reject) as caught:
        check_plan(plan)
    return caught.value.code


@pytest.mark.parametrize("mode", ["distributed", "local"])
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0, 8.0])
def test_calibrated_plans_hold(mode: str, epsilon: float) -> None:
    check_plan(make_plan(mode=mode, epsilon=epsilon))


def test_a_large_federation_holds() -> None:
    check_plan(make_plan(n=100, t=67, c=33, bound=1024.0, population=10**6))


def with_sigma(factor: float, task: str = "risk") -> RunPlan:
    sigma = {t.name: t.encoded.sigma for t in make_plan().tasks}[task]
    return make_plan(sigmas={task: sigma * factor})


def test_too_little_noise_is_refused() -> None:
    for task in ("risk", "segment", "evaluation"):
        assert code_of(with_sigma(0.99, task)) == "plan-epsilon"
    assert code_of(make_plan(sigmas={"risk": 1e-200})) == "plan-epsilon"
    check_plan(with_sigma(1 - 1e-7))  # rounding in another library is no fraud
    check_plan(with_sigma(1.01))


def test_spare_rounds_are_part_of_the_claim() -> None:
    honest = make_plan(rounds=30, spare=0)
    sigmas = {t.name: t.encoded.sigma for t in honest.tasks}
    check_plan(honest)
    assert code_of(make_plan(rounds=30, spare=1, sigmas=sigmas)) == "plan-epsilon"


def test_a_delta_above_the_populations_is_refused() -> None:
    assert code_of(make_plan(population=10**6, delta=1e-5)) == "plan-delta"
    check_plan(make_plan(population=10**6, delta=1e-8))


@pytest.mark.parametrize("terms", [{"scale": 2}, {"clip": 2.0}, {"clip": 0.5}])
def test_a_histogram_counts_one_step_a_patient(terms: dict[str, float]) -> None:
    assert code_of(make_plan(count_terms=terms)) == "plan-counts"


def test_noise_that_is_too_coarse_for_its_claim_is_refused() -> None:
    # epsilon 20 with a tiny delta: e^20 times the log-ratio of 40 coarse lanes passes delta / 100.
    assert code_of(make_plan(epsilon=20.0, population=10**9, n=40, t=27, c=13)) == "plan-slack"


def test_an_encoding_that_could_overflow_is_refused() -> None:
    assert code_of(make_plan(bound=2.0**17)) == "encoding-overflow"
    assert code_of(make_plan(bound=2.0**17, mode="local")) == "encoding-overflow"
