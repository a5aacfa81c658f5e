"""A withdrawal while a run is going on: the next sum that the coordinator opens is made without the patient."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cameo_client.cli import app
from cameo_client.consent.records import made_up
from cameo_client.consent.store import ConsentStore
from cameo_client.consent.uses import RunUses
from cameo_client.data.columns import model_columns
from cameo_client.data.hospital import load
from cameo_client.data.pseudonyms import pseudonym
from cameo_client.data.source import TableSource
from cameo_client.home import NodeHome, load_pseudonym_key
from cameo_client.node.contribution import Contributor
from cameo_client.node.study import LocalData, open_study, utc_now
from cameo_client.source import source_of
from cameo_lab.in_process import DirectExchange
from cameo_models.features import feature_matrix
from cameo_protocol.console import execute
from cameo_protocol.packet import Packet
from cameo_protocol.stages import UPLOAD, RoundCall
from cameo_server.app import drive
from cameo_server.run.store import RunStore


def no_noise(_sd: float, size: int) -> Any:
    return np.zeros(size, dtype=np.int64)


def middle(size: int) -> bytes:
    """The rounding is to the nearest integer."""
    return b"\x80" * size


class Watch:
    """Drives a run whose vectors hold no noise; does something before the upload of a training round.

    vectors, models: (site, number of the upload) -> hospital's vector, and the joint parameters it was asked with.
    """

    def __init__(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.vectors: dict[tuple[int, int], Any] = {}
        self.models: dict[int, Any] = {}
        self.kinds: dict[int, str] = {}
        self.uploads = dict.fromkeys(world.nodes, 0)
        honest, watch = Contributor.noisy_vector, self

        def silent(this: Contributor, kind: Any, parameters: Any) -> Any:
            this._noise, this._random = no_noise, middle
            vector = honest(this, kind, parameters)
            watch.vectors[watch.site, watch.uploads[watch.site]] = vector.copy()
            watch.models[watch.uploads[watch.site]] = parameters.copy()
            return vector

        monkeypatch.setattr(Contributor, "noisy_vector", silent)

    def drive(self, *, before: dict[int, Any]) -> RunStore:
        """before: what is done before hospital 1 gets its nth upload."""
        store = RunStore(self.world.coordinator.runs / "r1")
        store.create(self.world.plan.canonical())

        def handle(site: int, packet: Packet) -> Packet:
            if packet.kind == UPLOAD:
                self.site = site
                self.uploads[site] += 1
                self.kinds[self.uploads[site]] = RoundCall.decode(packet.body).kind
                if site == 1 and self.uploads[site] in before:
                    before[self.uploads[site]]()
            return self.world.nodes[site].hospital.handle(packet)

        def handler(site: int) -> Any:
            return lambda packet: handle(site, packet)

        exchange = DirectExchange({100 + site: handler(site) for site in self.world.nodes})
        nodes = {site: 100 + site for site in self.world.nodes}
        drive(exchange, self.world.coordinator, store, "r1", self.world.plan, nodes)
        return store


def node_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> Any:
    """`cameo-node … --json`, as another process would run it."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["cameo-node", *words, "--home", str(home), "--json"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert execute(app, "cameo-node") == 0
    return json.loads(capsys.readouterr().out)


def sum_without(world: Any, kind: Any, model: Any, path: Path) -> Any:
    """Hospital 1's vector without noise, computed anew from a file."""
    home = NodeHome(world.homes / "h1")
    found = source_of(home)
    assert isinstance(found.source, TableSource)
    source = TableSource(mapping=found.source.mapping, path=path)
    data = load(source, found.catalogue, found.labels, load_pseudonym_key(home.pseudonym_key))
    local = LocalData(data, found.catalogue, feature_matrix(found.catalogue, model_columns(data, found.catalogue)))
    with ConsentStore.open(home.consent) as consents:
        study = open_study(home, world.plan, local, consents, utc_now)
        contributor = Contributor(world.plan, study.patients, no_noise, middle)
        return contributor.noisy_vector(kind, model)


def trained_on(world: Any) -> str:
    """The pseudonym of a patient of hospital 1 whose data training uses."""
    home = NodeHome(world.homes / "h1")
    study = open_study(home, world.plan, world.first.local(), world.first.consents, utc_now)
    patients = study.patients
    used = patients.allowed() & ~patients.held_out
    for outcome in patients.outcomes.values():
        used &= ~np.isnan(outcome)
    names: list[str] = world.first.local().pseudonyms
    return names[int(np.flatnonzero(used)[0])]


def test_a_withdrawal_between_two_rounds_of_a_running_training_takes_the_patient_out_of_the_next_sum(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sums that the coordinator opens: round 1 with the patient, round 2 that of a file without the patient."""
    home = NodeHome(world.homes / "h1")
    whole = Path(source_of(home).source.path)  # type: ignore[arg-type]
    gone, key = trained_on(world), load_pseudonym_key(home.pseudonym_key)
    rows = list(csv.reader(whole.open(encoding="utf-8")))
    kept = [row for row in rows if pseudonym(key, row[rows[0].index("person_id")]) != gone]
    assert len(kept) == len(rows) - 1
    smaller = tmp_path / "smaller.csv"
    with smaller.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(kept)

    with monkeypatch.context() as patch:
        watch = Watch(world, patch)

        def withdraw() -> None:
            told = node_command(
                monkeypatch, capsys, home.root, "consent", "withdraw", gone, "--scope", "model_training"
            )
            assert told["withdrawn"] == ["model_training"]

        store = watch.drive(before={2: withdraw})
    assert [watch.kinds[n] for n in (1, 2)] == ["train", "train"]
    for number in (1, 2):
        opened = store.load_arrays(f"opening-{number:04d}.npz")["total"]
        others = [watch.vectors[site, number] for site in (2, 3, 4)]
        own = sum_without(world, "train", watch.models[number], smaller)
        expected = np.sum(np.stack([own, *others]).astype(np.uint64), axis=0) % 2**32
        assert np.array_equal(opened, expected.astype(np.uint32)) == (number == 2)
    uses = node_command(monkeypatch, capsys, home.root, "consent", "report", gone)["uses"]
    assert [(use["scope"], use["action"], use["reference"], use["ground"]) for use in uses] == [
        ("model_training", "model trained", "r1", "consent")
    ]
    purged = node_command(monkeypatch, capsys, home.root, "consent", "purge", "--before", "2999-01-01")
    assert purged["uses"] > 0
    assert node_command(monkeypatch, capsys, home.root, "consent", "report", gone)["uses"] == []
    (log,) = node_command(monkeypatch, capsys, home.root, "consent", "purge")["log"]
    assert (log["before"][:10], log["uses"]) == ("2999-01-01", purged["uses"])


def test_every_patient_that_a_run_used_is_told_so_and_nobody_else(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study(NodeHome(world.homes / "h1"), world.plan, world.first.local(), world.first.consents, utc_now)
    allowed, held_out = study.patients.allowed(), study.patients.held_out
    assert not allowed.all()
    with monkeypatch.context() as patch:
        Watch(world, patch).drive(before={})
    for name, yes, kept in zip(world.first.local().pseudonyms, allowed, held_out, strict=True):
        actions = {use.action for use in world.first.consents.report(name).uses}
        if not yes:
            assert actions == set()
        elif kept:
            assert actions <= {"model tested"}
        else:
            assert "model trained" in actions
            assert "model tested" not in actions


def test_a_minors_consent_to_training_counts_with_a_guardian_only(world: Any) -> None:
    home, local, now = NodeHome(world.homes / "h1"), world.first.local(), utc_now()
    row = local.pseudonyms.index(trained_on(world))
    ages = local.data.facts["age"].scatter(row, 15.0)
    young = replace(local, data=replace(local.data, facts=local.data.facts.with_columns(age=ages)))
    study = open_study(home, world.plan, young, world.first.consents, utc_now)
    assert not study.patients.allowed()[row]
    granted = made_up([local.pseudonyms[row]], ("model_training",), now)
    world.first.consents.add([replace(granted[0], guardian="guardian 7")], now=now)
    assert study.patients.allowed()[row]


def test_a_use_is_noted_once_and_before_it_happens(world: Any, tmp_path: Path) -> None:
    """A store that cannot be written stops the vector."""
    study = open_study(NodeHome(world.homes / "h1"), world.plan, world.first.local(), world.first.consents, utc_now)
    names = world.first.local().pseudonyms
    with ConsentStore.open(tmp_path / "c.sqlite") as consents:
        uses = RunUses(names, consents, lambda: "the hospital law", utc_now)
        rows = np.zeros(len(names), dtype=bool)
        rows[:3] = True
        uses.note("r1", "train", rows)
        rows[3] = True
        uses.note("r1", "train", rows)
        uses.note("r2", "train", rows)
        assert [len(consents.report(name).uses) for name in names[:5]] == [2, 2, 2, 2, 0]
        assert {use.ground for use in consents.report(names[0]).uses} == {"the hospital law"}
    model = np.zeros(sum(task.encoded.dim for task in world.plan.trained()))
    world.first.consents._db.execute("PRAGMA query_only = ON")
    with pytest.raises(Exception, match="consent-store-write"):
        Contributor(world.plan, study.patients, no_noise, middle, "r3").noisy_vector("train", model)
