"""Laws of bundles: any bytes but a canonical bundle give a `Reject`, and no other exception."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cameo_models.bundle import BundleFacts, ModelBundle, parse_bundle
from cameo_protocol.errors import Reject
from cameo_protocol.plan import Encoded, RiskTask

TASK = RiskTask(
    label="l", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=Encoded(dim=3, clip=1, bound=1, scale=1, sigma=1)
)
FACTS = BundleFacts(plan_id="a" * 64, catalogue_sha256="b" * 64, features=2, round=3, task=TASK)
GOOD = ModelBundle(FACTS, np.array([0.5, -1.0, 2.0])).to_bytes()


def read(raw):
    try:
        return parse_bundle(raw)
    except Reject:
        return None


@given(st.binary(max_size=300))
def test_garbage(raw):
    assert read(raw) is None


@given(st.data())
def test_a_changed_bit_is_refused_or_gives_another_bundle(data):
    at = data.draw(st.integers(0, 8 * len(GOOD) - 1))
    raw = bytearray(GOOD)
    raw[at // 8] ^= 1 << at % 8
    bundle = read(bytes(raw))
    assert bundle is None or bundle.to_bytes() == bytes(raw)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_every_finite_vector_survives(values):
    params = np.array(values, dtype=np.float64)
    assert parse_bundle(ModelBundle(FACTS, params).to_bytes()).parameters.tobytes() == params.tobytes()
