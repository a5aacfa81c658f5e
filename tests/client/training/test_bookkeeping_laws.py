"""Law: whatever the records, parameters and clip, book-keeping and Opacus' hooks give one clipped sum."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cameo_client.training.gradients import PatientGradients
from cameo_models.shapes import parameter_count
from cameo_protocol.plan import Encoded, RiskTask, SegmentTask

ENCODED = Encoded(dim=1, clip=1.0, bound=1.0, scale=1, sigma=1.0)
LOGISTIC = RiskTask(label="l", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=ENCODED)
TASKS = [
    LOGISTIC,
    LOGISTIC.model_copy(update={"model": "mlp", "hidden": 3}),
    SegmentTask(clusters=3, temperature=0.5, rate=0.1, share=1.0, encoded=ENCODED),
]
F = 4
FEATURE = st.floats(-1, 1, width=32) | st.just(float("nan")) | st.just(float("inf"))


@st.composite
def cases(draw):
    task = draw(st.sampled_from(TASKS))
    size = draw(st.integers(1, 6))
    rows = draw(arrays(np.float32, (size, F), elements=FEATURE))
    labels = draw(arrays(np.int64, size, elements=st.integers(0, 1))) if isinstance(task, RiskTask) else None
    params = draw(arrays(np.float64, parameter_count(task, F), elements=st.floats(-8, 8)))
    return task, rows, labels, params, draw(st.floats(1e-3, 50))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_equals_opacus_hooks(case):
    task, rows, labels, params, clip = case
    ours = PatientGradients(task, rows, labels)
    fast = ours.clipped_sum(params, clip)
    ours._batches = None
    np.testing.assert_allclose(fast, ours.clipped_sum(params, clip), atol=1e-4, rtol=0)
