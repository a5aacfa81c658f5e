"""From a hospital's home and a plan to the rows that training may read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt

from cameo_client.consent.store import ConsentStore
from cameo_client.consent.uses import TRAINING, RunUses, minors
from cameo_client.data.catalogue import load_labels
from cameo_client.data.columns import group_column, model_columns, outcome_column
from cameo_client.data.holdout import held_out
from cameo_client.data.hospital import HospitalData, every_record
from cameo_client.home import NodeHome, load_pseudonym_key
from cameo_client.node.admission import PolicyRefusal, Study
from cameo_client.node.contribution import Patients
from cameo_client.policy_file import load_policy
from cameo_client.source import read
from cameo_models.features import feature_matrix
from cameo_protocol.facts import Catalogue
from cameo_protocol.plan import HistogramTask, RiskTask, RunPlan

CONSENT = "consent"


@dataclass(frozen=True, eq=False, repr=False)
class LocalData:
    """This hospital's patients on one catalogue. features: (N, F), rows in the order of `data.facts`."""

    data: HospitalData
    catalogue: Catalogue
    features: npt.NDArray[np.float32]

    @property
    def pseudonyms(self) -> list[str]:
        """Row i's pseudonym."""
        return self.data.facts["pseudonym"].to_list()


def load_local(home: NodeHome, *, today: date | None = None) -> LocalData:
    """Read this hospital's source as node.toml names it. Every fault is an `OperatorError`."""
    found, data = read(home, today=today)
    return LocalData(data, found.catalogue, feature_matrix(found.catalogue, model_columns(data, found.catalogue)))


def open_study(
    home: NodeHome, plan: RunPlan, local: LocalData, consents: ConsentStore, now: Callable[[], datetime]
) -> Study:
    """The rows that a plan may read here. The quality gate and the plan's definitions are checked.

    Raises PolicyRefusal when the plan's catalogue or label is not the one installed here.
    """
    _check_definitions(plan, local)
    local.data.quality.require()
    labels = {task.label for task in plan.tasks if isinstance(task, RiskTask)}
    key = load_pseudonym_key(home.pseudonym_key)
    every = every_record(local.data)
    names: list[str] = every.facts["pseudonym"].to_list()
    young = minors(local.data.facts)

    def allowed() -> npt.NDArray[np.bool_]:
        return _may_train(home, names, consents, now(), young)

    patients = Patients(
        features=_features(local, every),
        outcomes={label: outcome_column(every, label) for label in labels},
        held_out=held_out(names, share=plan.data.holdout, key=key, dataset=local.data.dataset),
        allowed=allowed,
        owner=_owners(names),
        groups={
            task.name: group_column(every, local.catalogue, task.by)
            for task in plan.tasks
            if isinstance(task, HistogramTask) and task.by is not None
        },
        note_use=RunUses(names, consents, lambda: _ground(home), now).note,
    )
    return Study(patients=patients, features=local.features.shape[1])


def may_train_now(home: NodeHome, data: HospitalData, now: datetime) -> npt.NDArray[np.bool_]:
    """(N,) which of these patients a run may train on now, as this hospital's consents and policy stand."""
    with ConsentStore.open(home.consent) as consents:
        return _may_train(home, data.facts["pseudonym"].to_list(), consents, now, minors(data.facts))


def _features(local: LocalData, every: HospitalData) -> npt.NDArray[np.float32]:
    """The features of every record; those of the current ones are there already."""
    if every is local.data:
        return local.features
    return feature_matrix(local.catalogue, model_columns(every, local.catalogue))


def _owners(names: list[str]) -> npt.NDArray[np.int64] | None:
    """(N,) whose record each row is; None where every row is another patient."""
    unique, owner = np.unique(np.array(names, dtype=str), return_inverse=True)
    return None if len(unique) == len(names) else owner.astype(np.int64)


def _may_train(
    home: NodeHome, names: list[str], consents: ConsentStore, now: datetime, young: frozenset[str]
) -> npt.NDArray[np.bool_]:
    """(N,) True for patients whose data may be used for training now: consent, or a legal basis and no objection.

    young: whose consent counts only with a guardian's decision.
    """
    if _ground(home) != CONSENT:
        objected = consents.withdrawn(TRAINING, now)
        return np.array([name not in objected for name in names], dtype=bool)
    return consents.granted(names, TRAINING, now, minors=young)


def _ground(home: NodeHome) -> str:
    """On what training rests here now: the policy's legal basis in its own words, or consent."""
    return load_policy(home.policy).policy.legal_basis.get(TRAINING, CONSENT)


def _check_definitions(plan: RunPlan, local: LocalData) -> None:
    catalogue = local.catalogue
    if (plan.data.catalogue, plan.data.catalogue_sha256) != (catalogue.id, catalogue.sha256()):
        raise PolicyRefusal(f"the plan's catalogue {plan.data.catalogue} is not the one of this hospital's source")
    installed = {label.id: label.sha256() for label in load_labels(catalogue)}
    for task in plan.tasks:
        if isinstance(task, RiskTask) and installed.get(task.label) != task.label_sha256:
            raise PolicyRefusal(f"the plan's label {task.label} is not the one that is installed here")
        if isinstance(task, RiskTask) and task.label not in local.data.outcomes.columns:
            raise PolicyRefusal(f"this hospital's source has no outcome for label {task.label}")
        if isinstance(task, HistogramTask) and task.by and (misfit := task.by.fits(catalogue)):
            raise PolicyRefusal(f"task {task.name}: {misfit}")


def utc_now() -> datetime:
    """The clock of a node."""
    return datetime.now(UTC)
