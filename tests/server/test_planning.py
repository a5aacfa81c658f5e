"""From an experiment to a plan: the claim holds, the sums fit, and what cannot be carried out is said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_models.shapes import parameter_count
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import feature_names
from cameo_protocol.plan import RunPlan, Site, parse_plan
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.plan_check import check_plan
from cameo_protocol.privacy.releases import plan_releases
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import CohortChoice, resolve, resolve_cohort


def sites(n: int) -> tuple[Site, ...]:
    return tuple(Site(name=f"hospital-{i}", index=i, identity=f"{i:064x}") for i in range(1, n + 1))


def make(*overrides: str, n: int = 4) -> RunPlan:
    experiment = compose_experiment(conf_dir(), overrides)
    return resolve(experiment, read_catalogue(experiment.data.catalogue), read_label(experiment.data.label), sites(n))


def spent(plan: RunPlan) -> float:
    return epsilon([release for _, release in plan_releases(plan)], plan.privacy.delta)


def refused(*overrides: str, n: int = 4) -> str:
    with pytest.raises(OperatorError) as error:
        make(*overrides, n=n)
    assert error.value.do
    return error.value.code


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("privacy=local",),
        ("risk=mlp",),
        ("privacy.epsilon=0.5",),
        ("privacy.epsilon=6", "training.rounds=1", "training.spare=0"),
        ("data=heart", "data.population=900"),
    ],
)
def test_a_plan_keeps_its_claim_and_passes_the_check_of_hospitals(overrides: tuple[str, ...]) -> None:
    plan = make(*overrides)
    check_plan(plan)
    assert 0.9 * plan.privacy.epsilon <= spent(plan) <= plan.privacy.epsilon * (1 + 1e-9)
    assert parse_plan(plan.canonical()) == plan


def test_what_hospitals_would_refuse_is_said_before_they_are_asked() -> None:
    assert refused("privacy.epsilon=20", "training.rounds=1", "training.spare=0") == "plan-slack"
    assert refused("privacy.delta=0.01") == "plan-delta"


def test_the_noise_covers_spare_rounds() -> None:
    lean, spare = make("training.spare=0"), make("training.spare=30")
    assert spare.tasks[0].encoded.sigma > lean.tasks[0].encoded.sigma


def test_delta_follows_the_population_unless_chosen() -> None:
    assert make("data.population=16000").privacy.delta == 1e-5
    assert make("data.population=1000000").privacy.delta == pytest.approx(1e6**-1.1)
    assert make("privacy.delta=1e-7").privacy.delta == 1e-7


def test_local_mode_pays_in_scale_not_in_its_claim() -> None:
    local, distributed = make("privacy=local"), make()
    assert local.privacy.mode == "local"
    assert spent(local) == pytest.approx(spent(distributed))
    for one, other in zip(local.trained(), distributed.trained(), strict=True):
        assert one.encoded.scale <= other.encoded.scale


def test_blocks_are_as_large_as_their_models() -> None:
    plan = make("risk=mlp", "risk.hidden=5", "segment.clusters=3", "evaluation.bins=10", "evaluation.group_bins=6")
    features = len(feature_names(read_catalogue("cardiometabolic")))
    for task in plan.trained():
        assert task.encoded.dim == parameter_count(task, features)
    lanes = {block.name: block.dim for block in plan.layout("evaluate").blocks}
    assert lanes == {"evaluation": 20, "evaluation-sex": 2 * 12, "evaluation-age": 3 * 12}


def grouped(groups: dict[str, tuple[float, ...]]) -> RunPlan:
    """The shipped experiment with other groups."""
    experiment = compose_experiment(conf_dir(), [])
    data = experiment.data.model_copy(update={"groups": groups})
    experiment = experiment.model_copy(update={"data": data})
    return resolve(experiment, read_catalogue(data.catalogue), read_label(data.label), sites(4))


@pytest.mark.parametrize(
    "groups",
    [
        {"nothing": (1.0,)},
        {"Age!": (1.0,)},
        {"age": ()},
        {"age": (65.0, 45.0)},
        {"age": (50.0, 50.0)},
        {"sex": (1.0,)},
        {"smoker": ()},
        {"dx_depression": ()},
        {"hba1c": (6.5,)},
        {"age": tuple(float(i) for i in range(16))},
        {"age": (50.0,), "sex": (), "region": (), "insurance": (), "egfr": (60.0,)},
    ],
)
def test_groups_that_the_catalogue_does_not_allow_are_said(groups: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(OperatorError, match="groups-unfit"):
        grouped(groups)


def test_groups_and_recalibration_are_a_matter_of_configuration() -> None:
    plain = make("~data.groups.sex", "~data.groups.age", "recalibration.share=0")
    assert [task.name for task in plain.tasks] == ["risk", "segment", "evaluation"]
    most = grouped({"age": (50.0,), "sex": (), "region": (), "insurance": ()})
    assert [task.name for task in most.tasks][3:] == [
        "evaluation",
        "evaluation-age",
        "evaluation-sex",
        "evaluation-region",
        "evaluation-insurance",
    ]
    assert spent(most) == pytest.approx(spent(plain), rel=1e-6)
    assert most.tasks[0].encoded.sigma > plain.tasks[0].encoded.sigma
    assert "evaluation-region" in [task.name for task in make("+data.groups.region=[]").tasks]


def test_planning_is_deterministic() -> None:
    assert make().plan_id() == make().plan_id()
    assert make("seed=2").plan_id() != make().plan_id()


def test_cohorts_that_cannot_be() -> None:
    assert refused(n=2) == "cohort-too-small"
    assert refused("cohort.threshold=5") == "cohort-unsound"
    assert refused("cohort.threshold=2") == "cohort-unsound"
    assert refused("cohort.threshold=3", "cohort.colluders=2") == "cohort-unsound"
    assert refused("cohort.threshold=3", "cohort.colluders=2", n=3) == "cohort-noise"
    assert make("cohort.threshold=3", "cohort.colluders=2", "privacy=local", n=3).cohort.colluders == 2


def test_a_label_of_another_catalogue_is_refused() -> None:
    assert refused("data.label=heart_disease") == "label-unfit"
    assert refused("data.label=nothing") == "definition-missing"


@given(st.integers(3, 255))
@settings(max_examples=60)
def test_default_cohorts_are_sound_and_more_than_two_thirds(n: int) -> None:
    cohort = resolve_cohort(CohortChoice(threshold=None, colluders=None), sites(n))
    t, c = cohort.threshold, cohort.colluders
    assert 2 * t > n + c
    assert 3 * t > 2 * n
    assert t - c >= 2


@given(n=st.integers(3, 12), t=st.integers(2, 13), c=st.integers(0, 12))
def test_a_chosen_cohort_is_sound_or_refused(n: int, t: int, c: int) -> None:
    choice = CohortChoice(threshold=t, colluders=c)
    if c < t <= n and 2 * t > n + c:
        cohort = resolve_cohort(choice, sites(n))
        assert (cohort.threshold, cohort.colluders) == (t, c)
        return
    with pytest.raises(OperatorError) as error:
        resolve_cohort(choice, sites(n))
    assert error.value.code == "cohort-unsound"
