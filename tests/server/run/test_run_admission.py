"""Admission and parties over a scripted exchange: who is taken in, who is dropped, and what events say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan, Site
from cameo_protocol.stages import ACK, ADMIT, Admission, error_packet
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import resolve
from cameo_server.run.admission import admit
from cameo_server.run.party import Parties
from cameo_server.run.store import RunStore

KEYS = {i: Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2, 3, 4)}
COORDINATOR = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)


@pytest.fixture(scope="module")
def plan() -> RunPlan:
    """Four hospitals with real identity keys."""
    raw, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    sites = [
        Site(name=f"hospital-{i}", index=i, identity=key.public_key().public_bytes(raw, form).hex())
        for i, key in KEYS.items()
    ]
    experiment = compose_experiment(conf_dir(), [])
    return resolve(experiment, read_catalogue(experiment.data.catalogue), read_label(experiment.data.label), sites)


@dataclass
class Scripted:
    """Answers each node as told; None = no answer. Time passes only by waiting."""

    answer: Callable[[int], Packet | None]
    now: float = 0.0
    asked: list[int] = field(default_factory=list)

    def ask(self, requests: Mapping[int, Packet], deadline_s: float) -> Iterator[tuple[int, Packet]]:
        assert deadline_s > 0
        for node in sorted(requests):
            self.asked.append(node)
            if (packet := self.answer(node)) is not None:
                yield node, packet

    def post(self, requests: Mapping[int, Packet]) -> None:
        raise AssertionError(requests)

    def collect(self) -> Iterator[tuple[int, Packet]]:
        return iter(())

    def wait(self, seconds: float) -> None:
        self.now += seconds


def signed(plan: RunPlan, index: int, answer: Any = "accept", *, run: str = "r", key: int = 0) -> Packet:
    admission = Admission(run=run, plan_id=bytes.fromhex(plan.plan_id()), answer=answer)
    return Packet(ADMIT, admission.seal(KEYS[key or index]))


def parties(plan: RunPlan, folder: Path, exchange: Scripted) -> Parties:
    store = RunStore(folder / "r")
    store.create(plan.canonical())
    nodes = {i: i for i in KEYS}
    return Parties(plan, nodes, exchange, store, clock=lambda: exchange.now, pause=exchange.wait)


def lost(found: Parties) -> list[tuple[str, str]]:
    return [(event["site"], event["code"]) for event in found.store.events() if event["event"] == "lost"]


def test_all_accept(plan: RunPlan, tmp_path: Path) -> None:
    found = parties(plan, tmp_path, Scripted(lambda node: signed(plan, node)))
    admit(found, "r", COORDINATOR)
    assert found.active == {1, 2, 3, 4}
    assert lost(found) == []


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (lambda plan: signed(plan, 2, key=3), "signature-invalid"),
        (lambda plan: signed(plan, 2, run="other"), "plan-foreign"),
        (lambda plan: Packet(ADMIT, b"\xff"), "message-malformed"),
        (lambda plan: Packet(ACK, b""), "wrong-answer"),
        (lambda plan: error_packet("failed-local"), "failed-local"),
        (lambda plan: None, "no-answer"),
    ],
)
def test_whoever_answers_wrongly_or_not_is_dropped_by_name(
    plan: RunPlan, tmp_path: Path, packet: Callable[[RunPlan], Packet | None], code: str
) -> None:
    exchange = Scripted(lambda node: packet(plan) if node == 2 else signed(plan, node))
    found = parties(plan, tmp_path, exchange)
    admit(found, "r", COORDINATOR)
    assert found.active == {1, 3, 4}
    assert lost(found) == [("hospital-2", code)]
    assert exchange.now <= plan.deadlines.admit


def test_a_late_hospital_is_asked_again_and_the_others_are_not(plan: RunPlan, tmp_path: Path) -> None:
    exchange = Scripted(lambda node: None if node == 2 and exchange.now < 3 else signed(plan, node))
    found = parties(plan, tmp_path, exchange)
    admit(found, "r", COORDINATOR)
    assert found.active == {1, 2, 3, 4}
    assert exchange.asked.count(1) == 1
    assert exchange.asked.count(2) > 1


@pytest.mark.parametrize("answer", ["declined-policy", "declined-local"])
def test_too_few_stop_the_run(plan: RunPlan, tmp_path: Path, answer: str) -> None:
    found = parties(plan, tmp_path, Scripted(lambda node: signed(plan, node, answer if node < 3 else "accept")))
    with pytest.raises(OperatorError) as stopped:
        admit(found, "r", COORDINATOR)
    assert (stopped.value.code, stopped.value.exit_code) == ("cohort-incomplete", ExitCode.PEER)
    assert "cameo watch " in stopped.value.do
    assert "cameo site list" in stopped.value.do
    assert [e["answer"] for e in found.store.events() if e["event"] == "admission"].count(answer) == 2
