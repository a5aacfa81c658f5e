"""Model bundles: what is written is read back, and nothing else is read."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save

from cameo_models import bundle as bundles
from cameo_models.bundle import BundleFacts, ModelBundle, check_bundle, parse_bundle
from cameo_models.shapes import parameter_count
from cameo_protocol.errors import Bug, Reject
from cameo_protocol.plan import (
    Cohort,
    DataTerms,
    Encoded,
    PrivacyTerms,
    RiskTask,
    RunPlan,
    SegmentTask,
    Site,
    Training,
)

F = 4
ENCODED = Encoded(dim=5, clip=1.0, bound=64.0, scale=1000, sigma=2.0)
RISK = RiskTask(label="l", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=ENCODED)
SEGMENT = SegmentTask(clusters=3, temperature=0.7, rate=0.1, share=1.0, encoded=ENCODED.model_copy(update={"dim": 12}))
PLAN = RunPlan(
    name="run",
    seed=1,
    data=DataTerms(catalogue="tiny", catalogue_sha256="c" * 64, holdout=0.2),
    cohort=Cohort(
        sites=tuple(Site(name=f"h{i}", index=i, identity=f"{i:064x}") for i in range(1, 5)), threshold=3, colluders=1
    ),
    privacy=PrivacyTerms(mode="distributed", epsilon=3, delta=1e-5, population=920),
    training=Training(rounds=30, spare=3),
    tasks=(RISK, SEGMENT),
)


def make(task=RISK, **changes):
    facts = BundleFacts(plan_id=PLAN.plan_id(), catalogue_sha256="c" * 64, features=F, round=30, task=task)
    params = np.random.default_rng(0).normal(size=parameter_count(task, F))
    return ModelBundle(facts.model_copy(update=changes), params)


@pytest.mark.parametrize("task", [RISK, SEGMENT], ids=["risk", "segment"])
def test_round_trip(task):
    written = make(task)
    read = parse_bundle(written.to_bytes())
    assert read.facts == written.facts
    np.testing.assert_array_equal(read.parameters, written.parameters)
    assert read.to_bytes() == written.to_bytes()
    assert read.sha256() == written.sha256()
    assert read.sha256() != make(task, round=29).sha256()


def test_a_correction_is_part_of_the_model():
    plain, moved = make(), make(slope=1.2, intercept=-0.1)
    assert (plain.facts.recalibrated, moved.facts.recalibrated) == (False, True)
    assert parse_bundle(moved.to_bytes()).facts == moved.facts
    assert plain.sha256() != moved.sha256()
    with pytest.raises(Reject, match="model-malformed"):
        parse_bundle(make(SEGMENT, slope=1.2).to_bytes())
    with pytest.raises(Reject, match="model-malformed"):
        parse_bundle(make(slope=-1.0).to_bytes())


def test_the_file_is_safetensors_with_canonical_json():
    raw = make().to_bytes()
    size = int.from_bytes(raw[:8], "little")
    text = json.loads(raw[8 : 8 + size])["__metadata__"]["cameo"]
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert raw[8 + size :] == make().parameters.tobytes()


def files():
    """Files that must fail, by what is wrong with them."""
    good, params = make(), make().parameters
    text = good.facts.canonical()
    spaced = json.dumps(json.loads(text), sort_keys=True)
    broken = json.loads(text)
    return {
        "empty": b"",
        "garbage": b"\x00" * 200,
        "huge header": b"\xff" * 8 + b"{}",
        "pickle": pickle.dumps({"parameters": params}),
        "short": good.to_bytes()[:-1],
        "long": good.to_bytes() + b"\x00",
        "no metadata": save({"parameters": params}),
        "no tensor": save({"other": params}, metadata={"cameo": text}),
        "one tensor more": save({"parameters": params, "more": params}, metadata={"cameo": text}),
        "one entry more": save({"parameters": params}, metadata={"cameo": text, "more": "x"}),
        "not json": save({"parameters": params}, metadata={"cameo": "{"}),
        "deep json": save({"parameters": params}, metadata={"cameo": "[" * 100_000}),
        "not canonical json": save({"parameters": params}, metadata={"cameo": spaced}),
        "unknown field": save({"parameters": params}, metadata={"cameo": json.dumps(broken | {"x": 1})}),
        "other version": save({"parameters": params}, metadata={"cameo": json.dumps(broken | {"version": 2})}),
        "wrong length": save({"parameters": params[:-1]}, metadata={"cameo": text}),
        "wrong shape": save({"parameters": params[None]}, metadata={"cameo": text}),
        "float32": save({"parameters": params.astype(np.float32)}, metadata={"cameo": text}),
        "integers": save({"parameters": params.astype(np.int64)}, metadata={"cameo": text}),
        "nan": save({"parameters": params * np.nan}, metadata={"cameo": text}),
        "inf": save({"parameters": params + np.inf}, metadata={"cameo": text}),
    }


@pytest.mark.parametrize("wrong", list(files()))
def test_files_that_must_fail(wrong):
    with pytest.raises(Reject, match="model-malformed"):
        parse_bundle(files()[wrong])


def test_oversize_is_refused_before_it_is_read(monkeypatch):
    raw = make().to_bytes()
    monkeypatch.setattr(bundles, "MAX_BUNDLE_BYTES", len(raw) - 1)
    with pytest.raises(Reject, match="model-malformed"):
        parse_bundle(raw)


def test_a_bundle_of_wrong_parameters_cannot_be_made():
    facts = make().facts
    for params in (np.zeros(3), np.full(5, np.nan), np.zeros(5, dtype=np.float32)):
        with pytest.raises(Bug):
            ModelBundle(facts, params)


def test_a_bundle_belongs_to_one_plan():
    check_bundle(make(), PLAN, F)
    check_bundle(make(SEGMENT), PLAN, F)
    check_bundle(make(slope=1.2, intercept=-0.1), PLAN, F)
    foreign = [
        make(plan_id="d" * 64),
        make(catalogue_sha256="d" * 64),
        make(round=31),
        make(RISK.model_copy(update={"rate": 0.2})),
    ]
    for bundle in foreign:
        with pytest.raises(Reject, match="model-foreign"):
            check_bundle(bundle, PLAN, F)
    with pytest.raises(Reject, match="model-foreign"):
        check_bundle(make(), PLAN, F + 1)
