"""A published model as one file: safetensors (no code, no pickle) with canonical JSON beside the numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cameo_models.shapes import ModelTask, Parameters, parameter_count
from cameo_protocol.errors import Bug, Reject
from cameo_protocol.plan import Hex32, RiskTask, RunPlan, SegmentTask

# A plan allows 2^24 parameters of 8 bytes; the header is small.
MAX_BUNDLE_BYTES = (1 << 27) + (1 << 16)
MAX_FEATURES = 100_000
_TENSOR, _METADATA = "parameters", "cameo"


class BundleFacts(BaseModel, frozen=True, extra="forbid"):
    """What a bundle says about its model.

    features: F of the catalogue with that hash. round: training rounds behind the parameters. slope, intercept: the
    correction of a risk model's logit after training; the parameters have it in them already. (1, 0) = none.
    """

    version: Annotated[int, Field(ge=1, le=1)] = 1
    plan_id: Hex32
    catalogue_sha256: Hex32
    features: int = Field(ge=1, le=MAX_FEATURES)
    round: int = Field(ge=0, le=1 << 20)
    slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    intercept: float = Field(default=0.0, allow_inf_nan=False)
    task: Annotated[RiskTask | SegmentTask, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _only_risk_is_corrected(self) -> Self:
        if self.recalibrated and not isinstance(self.task, RiskTask):
            raise ValueError("only a risk model is recalibrated")
        return self

    @property
    def recalibrated(self) -> bool:
        """Whether the model's probabilities were corrected after training."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """One model of one run. parameters: (d,) float64, finite, d = parameter_count(facts.task, facts.features)."""

    facts: BundleFacts
    parameters: Parameters

    def __post_init__(self) -> None:
        """Refuse parameters that are not this task's; a reader turns that into a `Reject`."""
        if self.parameters.shape != (parameter_count(self.facts.task, self.facts.features),):
            raise Bug("model-shape", what="the parameters are not those of the task's model")
        if self.parameters.dtype != np.float64 or not np.isfinite(self.parameters).all():
            raise Bug("model-values", what="the parameters are not finite 64-bit numbers")

    @property
    def task(self) -> ModelTask:
        """The task that was trained."""
        return self.facts.task

    def to_bytes(self) -> bytes:
        """The file. The same bundle gives the same bytes everywhere."""
        values = np.ascontiguousarray(self.parameters, dtype="<f8")
        return save({_TENSOR: values}, metadata={_METADATA: self.facts.canonical()})

    def sha256(self) -> str:
        """Hash of the file, hex: the model's id."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_bundle(raw: bytes) -> ModelBundle:
    """Read a bundle from exactly the bytes that `to_bytes` writes; anything else is a `Reject`.

    Memory stays within a small multiple of the input's size, which is at most MAX_BUNDLE_BYTES.
    """
    if len(raw) > MAX_BUNDLE_BYTES:
        raise Reject("model-malformed", what=f"{len(raw)} bytes where at most {MAX_BUNDLE_BYTES} are read")
    try:
        parameters = load(raw)[_TENSOR]
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        facts = BundleFacts.model_validate_json(header["__metadata__"][_METADATA])
        bundle = ModelBundle(facts, parameters)
    except (SafetensorError, ValidationError, ValueError, KeyError, TypeError, RecursionError, Bug) as error:
        raise Reject("model-malformed", what=f"not a model bundle of version 1 ({type(error).__name__})") from None
    if bundle.to_bytes() != raw:
        raise Reject("model-malformed", what="the bundle is not in its canonical form")
    return bundle


def check_bundle(bundle: ModelBundle, plan: RunPlan, features: int) -> None:
    """Refuse (`Reject`) a bundle that is not a model of this plan on a catalogue with that many features."""
    facts = bundle.facts
    expected = facts.plan_id == plan.plan_id() and facts.catalogue_sha256 == plan.data.catalogue_sha256
    if not (expected and facts.features == features and facts.task in plan.tasks):
        raise Reject("model-foreign", what="the bundle's plan, catalogue or task is not that of the run")
    if facts.round > plan.training.rounds:
        raise Reject("model-foreign", what="the bundle claims more rounds than the plan has")
