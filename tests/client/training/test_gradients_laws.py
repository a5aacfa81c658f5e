"""Laws of the clipped sum: its sensitivity is the clip, and the order of patients does not matter."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_client.training.gradients import PatientGradients
from cameo_models.shapes import parameter_count
from cameo_protocol.plan import Encoded, RiskTask, SegmentTask

ENCODED = Encoded(dim=1, clip=1.0, bound=1.0, scale=1, sigma=1.0)
LOGISTIC = RiskTask(label="l", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=ENCODED)
TASKS = [
    LOGISTIC,
    LOGISTIC.model_copy(update={"model": "mlp", "hidden": 3}),
    SegmentTask(clusters=2, temperature=0.5, rate=0.1, share=1.0, encoded=ENCODED),
]
F = 3


@st.composite
def cases(draw):
    task = draw(st.sampled_from(TASKS))
    size = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = rng.uniform(-1, 1, (size, F)).astype(np.float32)
    rows[rng.random(rows.shape) < draw(st.sampled_from([0.0, 0.1]))] = np.nan
    labels = rng.integers(0, 2, size) if isinstance(task, RiskTask) else None
    groups = rng.integers(0, 4, size)
    params = rng.normal(size=parameter_count(task, F)) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    return task, rows, labels, groups, params, draw(st.sampled_from([0.01, 0.3, 5.0]))


def chosen(task, rows, labels, groups, keep):
    return PatientGradients(task, rows[keep], None if labels is None else labels[keep], groups[keep])


@given(cases())
@settings(max_examples=60, deadline=None)
def test_one_patient_less_moves_the_sum_by_at_most_the_clip(case):
    task, rows, labels, groups, params, clip = case
    everyone = chosen(task, rows, labels, groups, np.ones(len(rows), dtype=bool)).clipped_sum(params, clip)
    others = chosen(task, rows, labels, groups, groups != groups[0]).clipped_sum(params, clip)
    assert np.isfinite(everyone).all()
    assert np.linalg.norm(everyone - others) <= clip * (1 + 1e-9)


@given(cases(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_records_does_not_matter(case, random):
    task, rows, labels, groups, params, clip = case
    order = list(range(len(rows)))
    random.shuffle(order)
    one = chosen(task, rows, labels, groups, np.arange(len(rows))).clipped_sum(params, clip)
    two = chosen(task, rows, labels, groups, np.array(order)).clipped_sum(params, clip)
    np.testing.assert_allclose(one, two, atol=1e-9)
