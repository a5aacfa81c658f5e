"""The deployed benchmark: real processes carry a round, and nothing stays behind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_lab.bench import secagg_deployed
from cameo_lab.bench.secagg_deployed_node import Numbers
from cameo_protocol.packet import Packet
from cameo_protocol.plan import parse_plan
from cameo_protocol.secagg.messages import pack, unpack
from cameo_protocol.stages import ADVERTISE, MAX_SETUP_ITEM, SHARE, EpochCall, unpair


@pytest.mark.slow
@pytest.mark.skipif("CAMEO_FULL" not in os.environ, reason="20 s of real processes; set CAMEO_FULL=1")
def test_a_deployed_round_is_measured_and_all_processes_end() -> None:
    before = set(Path(tempfile.gettempdir()).glob("cameo-bench-*"))
    found = secagg_deployed.deployed_round(500_000, 3, print)
    assert found["rounds"] == 2
    assert set(found["stages_s"]) == {"upload", "ack", "reveal"}
    assert 0 < sum(found["slowest_hospital_s"].values()) < found["round_s"] < 60
    assert not [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    assert set(Path(tempfile.gettempdir()).glob("cameo-bench-*")) <= before


def test_its_plan_is_a_plan_whose_vector_has_d_lanes(tmp_path) -> None:
    identities = {i: Ed25519PrivateKey.generate() for i in range(1, 5)}
    plan = parse_plan(secagg_deployed._plan(1_000_000, identities).canonical())
    assert plan.layout("train").dim == 1_000_000
    hospital = Numbers(plan, 1, identities[1], tmp_path)
    assert all(np.isfinite(values).all() for values in hospital._values.values())


def test_its_hospitals_answer_the_stages_as_hospitals_do(tmp_path) -> None:
    identities = {i: Ed25519PrivateKey.generate() for i in range(1, 5)}
    plan = secagg_deployed._plan(10, identities)
    hospitals = {}
    for i, key in identities.items():
        (tmp_path / str(i)).mkdir()
        hospitals[i] = Numbers(plan, i, key, tmp_path / str(i))
    call = Packet(ADVERTISE, EpochCall(run="bench", epoch=1, rounds=2, parties=(1, 2, 3, 4)).encode())
    adverts = {i: hospital.handle(call).body for i, hospital in hospitals.items()}

    answer = hospitals[2].handle(Packet(SHARE, pack(adverts)))
    _, boxes = unpair(answer.body)
    assert set(unpack(boxes, max_item_bytes=MAX_SETUP_ITEM)) == {1, 3, 4}


def test_its_figures_add_up() -> None:
    """The first round warms up and does not count; a stage is the slowest hospital's."""
    slow = {"upload": 9.0, "ack": 9.0, "reveal": 9.0}
    rounds = [slow, {"upload": 1.0, "ack": 0.5, "reveal": 0.25}, {"upload": 1.0, "ack": 0.5, "reveal": 0.25}]
    answers = [{s: [9.0, x, x] for s in slow} for x in (0.1, 0.2)]
    found = secagg_deployed._summary(7, {"setup_s": 2.0, "rounds": rounds}, answers, 0.05)
    assert found["round_s"] == 1.75
    assert found["slowest_hospital_s"] == {"upload": 0.2, "ack": 0.2, "reveal": 0.2}
    assert found["elsewhere_s"] == pytest.approx(1.75 - 0.6 - 0.05)
