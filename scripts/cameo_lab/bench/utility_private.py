"""Our risk model as the product trains it, in this process and without masks.

Everything is the product's: the composed experiment, calibration, `Contributor` (clipped sums, rounding, exact integer
noise), the coordinator's decoding, Adam and average. Left out are keys, masks and messages: masks cancel bit for bit
in the opened sum, so the sum that is trained on here is the one that a federation opens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Contributor, Patients
from cameo_client.training.noise import discrete_gaussian
from cameo_lab.bench.utility_data import Bools, UtilitySet
from cameo_models.scoring import risk_scores
from cameo_protocol import plan as plans
from cameo_protocol.confdir import conf_dir
from cameo_protocol.facts import feature_names
from cameo_protocol.plan import PrivacyTerms, RiskTask, RunPlan
from cameo_protocol.privacy.calibration import Share, calibrate
from cameo_protocol.privacy.plan_check import check_plan
from cameo_protocol.privacy.statements import delta_for
from cameo_protocol.secagg.encoding import largest_scale
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_label
from cameo_server.planning import resolve
from cameo_server.run.training import Models

Mode = Literal["distributed", "local"]
Scores = list[npt.NDArray[np.float64]]


def risk_plan(
    data: UtilitySet, mode: Mode, epsilon: float, delta: float | None, overrides: Sequence[str] = ()
) -> RunPlan:
    """The plan of `cameo run data=NAME` with the risk task alone, which gets the whole budget, spare rounds included.

    delta: None means the product's own, and the plan must then pass the check of every hospital; published tables use
    a larger one, which hospitals refuse. overrides: further Hydra overrides.
    """
    # The tasks that are dropped here would not be accepted at every epsilon, so the noise is chosen afterwards.
    chosen = [f"data={data.name}", f"privacy={mode}", "privacy.epsilon=1", "privacy.delta=null", *overrides]
    experiment = compose_experiment(conf_dir(), chosen)
    sites = [
        plans.Site(name=f"site{index}", index=index, identity=hashlib.sha256(site.name.encode()).hexdigest())
        for index, site in enumerate(data.sites, start=1)
    ]
    plan = resolve(experiment, data.catalogue, read_label(data.label), sites)
    own = delta_for(plan.privacy.population)
    privacy = PrivacyTerms(mode=mode, epsilon=epsilon, delta=delta or own, population=plan.privacy.population)
    plan = plan.model_copy(update={"tasks": (_whole_budget(plan, privacy),), "privacy": privacy})
    if privacy.delta <= own:
        check_plan(plan)
    return plan


def _whole_budget(plan: RunPlan, privacy: PrivacyTerms) -> RiskTask:
    """The plan's risk task with the noise that spends all of epsilon on it."""
    task = next(task for task in plan.tasks if isinstance(task, RiskTask))
    rounds = plan.training.rounds + plan.training.spare
    block, cohort = task.encoded, plan.cohort
    sigma = calibrate(privacy.epsilon, privacy.delta, [Share(name=task.name, rounds=rounds, weight=1.0)])[task.name]
    scale = largest_scale(
        dim=block.dim,
        clip=block.clip,
        bound=block.bound,
        sigma=sigma,
        n=len(cohort.sites),
        t=cohort.threshold,
        c=cohort.colluders,
        local=privacy.mode == "local",
    )
    return task.model_copy(update={"encoded": block.model_copy(update={"sigma": sigma, "scale": scale})})


def train(plan: RunPlan, data: UtilitySet, held_out: Sequence[Bools]) -> npt.NDArray[np.float64]:
    """The parameters that a run of `plan` publishes, (d,), trained on all patients that are not held out."""
    features = len(feature_names(data.catalogue))
    contributors = [
        Contributor(plan, _patients(data, index, held), discrete_gaussian, os.urandom)
        for index, held in enumerate(held_out)
    ]
    models = Models.initial(plan, features)
    for _ in range(plan.training.rounds):
        params = _floats(models.broadcast(plan))
        total = np.zeros(plan.layout("train").dim, dtype=np.uint32)
        for contributor in contributors:
            total += contributor.noisy_vector("train", params)  # modulo 2^32, as masked lanes are added
        models = models.after(plan, total)
    return _floats(models.result(plan))


def our_scores(plan: RunPlan, data: UtilitySet, held_out: Sequence[Bools]) -> Scores:
    """Train, and the risk of each hospital's held-out patients."""
    params = train(plan, data, held_out)
    (task,) = plan.trained()
    assert isinstance(task, RiskTask)
    return [
        risk_scores(task, site.features.shape[1], params, site.features[held])
        for site, held in zip(data.sites, held_out, strict=True)
    ]


def _patients(data: UtilitySet, index: int, held_out: Bools) -> Patients:
    site = data.sites[index]
    everyone = np.ones(len(site.labels), dtype=bool)
    return Patients(
        features=site.features, outcomes={data.label: site.labels}, held_out=held_out, allowed=lambda: everyone
    )


def _floats(raw: bytes) -> npt.NDArray[np.float64]:
    return np.frombuffer(raw, dtype="<f4").astype(np.float64)
