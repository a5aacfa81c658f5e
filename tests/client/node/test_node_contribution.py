"""What a hospital adds to a round: exactly its patients of now, in a vector whose size tells nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cameo_client.consent.records import ConsentRecord, made_up
from cameo_client.consent.uses import TRAINING
from cameo_client.data.hospital import Earlier
from cameo_client.home import NodeHome
from cameo_client.node.admission import PolicyRefusal, initial_model
from cameo_client.node.contribution import Contributor, Patients
from cameo_client.node.study import open_study
from cameo_client.training.gradients import PatientGradients
from cameo_protocol.groups import Groups
from cameo_protocol.plan import RiskTask, RunPlan


def no_noise(_sd: float, size: int) -> Any:
    return np.zeros(size, dtype=np.int64)


def middle(size: int) -> bytes:
    """Random bits of one half: the rounding is to the nearest integer."""
    return b"\x80" * size


def signed(vector: Any) -> Any:
    return vector.view(np.int32).astype(np.int64)


def study_of(world: Any) -> Any:
    home, node = NodeHome(world.homes / "h1"), world.first
    return open_study(home, world.plan, node.local(), node.consents, lambda: datetime.now(UTC))


def model_of(world: Any, features: int) -> Any:
    return initial_model(world.plan, features).astype(np.float64)


def withdraw(world: Any, row: int) -> None:
    now = datetime.now(UTC)
    record = ConsentRecord(
        pseudonym=world.first.local().pseudonyms[row],
        scope=TRAINING,
        status="withdrawn",
        notice_version="1",
        notice_sha256="0" * 64,
        method="made_up",
        at=now,
    )
    world.first.consents.add([record], now=now)


def test_a_withdrawal_takes_exactly_that_patient_out_of_the_next_sum(world: Any) -> None:
    study = study_of(world)
    patients, model = study.patients, model_of(world, study.features)
    contributor = Contributor(world.plan, patients, no_noise, middle)
    before = signed(contributor.noisy_vector("train", model))
    risk = next(task for task in world.plan.tasks if isinstance(task, RiskTask))
    known = ~np.isnan(patients.outcomes[risk.label])
    row = int(np.flatnonzero(patients.allowed() & ~patients.held_out & known)[0])
    withdraw(world, row)
    assert not patients.allowed()[row]
    after = signed(contributor.noisy_vector("train", model))
    start = 0
    for task, block in zip(world.plan.trained(), world.plan.layout("train").blocks, strict=True):
        assert task.name == block.name
        target = patients.outcomes[task.label][[row]] if isinstance(task, RiskTask) else None
        own = PatientGradients(task, patients.features[[row]], target)
        gradient = own.clipped_sum(model[world.plan.parameter_spans()[task.name]], task.encoded.clip)
        span = slice(start, start + block.dim)
        start += block.dim
        lost = before[span] - after[span]
        assert np.abs(gradient).max() > 0
        assert np.abs(lost - gradient * block.scale).max() <= 1  # two roundings to the nearest integer
        assert np.linalg.norm(lost) <= block.scale * task.encoded.clip + np.sqrt(block.dim)
    assert start == before.size


def test_nobody_joins_a_run_that_goes_on(world: Any) -> None:
    study = study_of(world)
    patients, model = study.patients, model_of(world, study.features)
    contributor = Contributor(world.plan, patients, no_noise, middle)
    row = int(np.flatnonzero(patients.allowed() & ~patients.held_out)[0])
    withdraw(world, row)
    without = contributor.noisy_vector("train", model)
    now = datetime.now(UTC)
    name = world.first.local().pseudonyms[row]
    world.first.consents.add(made_up([name], (TRAINING,), now), now=now)
    assert patients.allowed()[row], "the next run may use this patient"
    assert np.array_equal(contributor.noisy_vector("train", model), without)


@pytest.mark.parametrize(("kind", "held_out"), [("evaluate", True), ("recalibrate", False)])
def test_a_withdrawal_takes_a_patient_out_of_the_histograms_of_its_side(world: Any, kind: Any, held_out: bool) -> None:
    study = study_of(world)
    patients, model = study.patients, model_of(world, study.features)
    contributor = Contributor(world.plan, patients, no_noise, middle)
    risk = next(task for task in world.plan.tasks if isinstance(task, RiskTask))
    known = ~np.isnan(patients.outcomes[risk.label])
    before = signed(contributor.noisy_vector(kind, model))
    chosen = patients.allowed() & (patients.held_out == held_out) & known
    withdraw(world, int(np.flatnonzero(chosen)[0]))
    lost = before - signed(contributor.noisy_vector(kind, model))
    layout = world.plan.layout(kind)
    assert before.sum() == len(layout.blocks) * chosen.sum()  # nobody of the other side, everybody of this one
    for span in layout.spans().values():
        assert (lost[span].sum(), np.count_nonzero(lost[span])) == (1, 1)


def test_the_groups_of_a_histogram_are_those_of_the_facts(world: Any) -> None:
    study = study_of(world)
    patients, local = study.patients, world.first.local()
    risk = next(task for task in world.plan.tasks if isinstance(task, RiskTask))
    chosen = patients.allowed() & patients.held_out & ~np.isnan(patients.outcomes[risk.label])
    vector = signed(
        Contributor(world.plan, patients, no_noise, middle).noisy_vector("evaluate", model_of(world, study.features))
    )
    spans = world.plan.layout("evaluate").spans()
    age, sex = local.data.facts["age"].to_numpy()[chosen], local.data.facts["sex"].to_list()
    by_age = [int((age < 45).sum()), int(((age >= 45) & (age < 65)).sum()), int((age >= 65).sum())]
    assert vector[spans["evaluation-age"]].reshape(3, -1).sum(axis=1).tolist() == by_age
    women = sum(one == "female" for one, kept in zip(sex, chosen, strict=True) if kept)
    assert vector[spans["evaluation-sex"]].reshape(2, -1).sum(axis=1).tolist() == [women, chosen.sum() - women]


@pytest.mark.parametrize("kind", ["train", "recalibrate", "evaluate"])
def test_no_patient_one_and_many_give_equal_size_and_equal_noise(world: Any, kind: Any) -> None:
    study = study_of(world)
    model = model_of(world, study.features)
    sizes, calls = set(), []
    for count in (0, 1, len(study.patients.held_out)):
        asked: list[tuple[float, int]] = []
        calls.append(asked)

        def noise(sd: float, size: int, asked: list[tuple[float, int]] = asked) -> Any:
            asked.append((sd, size))
            return no_noise(sd, size)

        vector = Contributor(world.plan, first(study.patients, count), noise, middle).noisy_vector(kind, model)
        sizes.add((vector.nbytes, vector.dtype))
        if count == 0:
            assert not vector.any()
    assert len(sizes) == 1
    assert calls[0] == calls[1] == calls[2]
    assert all(sd > 0 for sd, _ in calls[0])


def first(patients: Patients, count: int) -> Patients:
    allowed = patients.allowed()[:count]
    return Patients(
        features=patients.features[:count],
        outcomes={label: values[:count] for label, values in patients.outcomes.items()},
        held_out=patients.held_out[:count],
        allowed=lambda: allowed,
        groups={task: values[:count] for task, values in patients.groups.items()},
    )


def test_warming_up_gives_nothing_and_changes_no_later_vector(world: Any) -> None:
    study = study_of(world)
    model = model_of(world, study.features)
    cold, warm = (Contributor(world.plan, study.patients, no_noise, middle) for _ in range(2))
    assert warm.warm_up(model) is None  # type: ignore[func-returns-value]
    assert np.array_equal(cold.noisy_vector("train", model), warm.noisy_vector("train", model))
    assert world.first.ledger.spent() == 0


def test_earlier_records_are_trained_on_as_part_of_their_patient_and_never_counted(world: Any) -> None:
    node = world.first
    local = node.local()
    again = [0, 1, 1, 5]
    earlier = Earlier(local.data.facts[again], local.data.outcomes[again])
    several = replace(local, data=replace(local.data, earlier=earlier))
    home = NodeHome(world.homes / "h1")
    study = open_study(home, world.plan, several, node.consents, lambda: datetime.now(UTC))
    plain, patients = study_of(world).patients, study.patients
    size = len(plain.held_out)
    assert plain.owner is None
    assert patients.owner is not None
    assert patients.owner[:4].tolist() == patients.owner[4:][again].tolist()
    assert sorted(patients.owner[4:].tolist()) == list(range(size))
    for every, one in ((patients.held_out, plain.held_out), (patients.allowed(), plain.allowed())):
        assert every.tolist() == [*one[again], *one]
    assert np.array_equal(patients.features, np.concatenate([plain.features[again], plain.features]))
    model = model_of(world, study.features)
    for kind in ("evaluate", "recalibrate"):
        vectors = [Contributor(world.plan, p, no_noise, middle).noisy_vector(kind, model) for p in (plain, patients)]
        assert np.array_equal(*vectors)


def with_groups(plan: RunPlan, **groups: Any) -> RunPlan:
    """The plan with other groups for its evaluation by sex."""
    (task,) = [task for task in plan.tasks if task.name == "evaluation-sex"]
    other = task.model_copy(update={"by": Groups(**groups)})
    return plan.model_copy(update={"tasks": tuple(other if one is task else one for one in plan.tasks)})


def test_a_plan_on_other_definitions_than_those_installed_is_refused(world: Any) -> None:
    home, node, plan = NodeHome(world.homes / "h1"), world.first, world.plan
    risk = next(task for task in plan.tasks if isinstance(task, RiskTask))
    others = tuple(task for task in plan.tasks if task is not risk)
    changed = (
        plan.model_copy(update={"data": plan.data.model_copy(update={"catalogue_sha256": "0" * 64})}),
        plan.model_copy(update={"data": plan.data.model_copy(update={"catalogue": "heart"})}),
        plan.model_copy(update={"tasks": (risk.model_copy(update={"label_sha256": "0" * 64}), *others)}),
        plan.model_copy(update={"tasks": (risk.model_copy(update={"label": "unknown"}), *others)}),
        with_groups(plan, fact="dx_depression", values=("no", "yes")),
        with_groups(plan, fact="sex", values=("male", "female")),
        with_groups(plan, fact="smoker", cuts=(0.5,)),
        with_groups(plan, fact="nothing", cuts=(0.5,)),
    )
    for other in changed:
        with pytest.raises(PolicyRefusal):
            open_study(home, other, node.local(), node.consents, lambda: datetime.now(UTC))
    missing = replace(node.local(), data=replace(node.local().data, outcomes=node.local().data.outcomes[:, :1]))
    with pytest.raises(PolicyRefusal, match="no outcome"):
        open_study(home, plan, missing, node.consents, lambda: datetime.now(UTC))
