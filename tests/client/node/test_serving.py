"""Which models serve: of every column the newest that is permitted and fits, and each tag says whose it is."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cameo_client.cli.tags import compare_models
from cameo_client.data.catalogue import load_catalogue
from cameo_client.home import NodeHome, write_file
from cameo_client.node.publication import SIGNED, load_published
from cameo_client.serving import Choice, choose
from cameo_client.tagging import open_ward, pack_paths, serving_models, tag_patients, tag_policy
from cameo_client.tags import desk
from cameo_client.tags.guards import model_is_good
from cameo_client.tags.render import text
from cameo_client.tags.roles import Person, added, to_yaml
from cameo_client.tags.rows import tag_of, values_of
from cameo_client.tags.store import TagStore
from cameo_models.bundle import ModelBundle
from cameo_models.numbering import Former, card_entry, centres_of, number
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import CameoError, OperatorError
from cameo_protocol.packet import Packet
from cameo_protocol.plan import SegmentTask
from cameo_protocol.stages import PUBLISH, error_code
from serving_kit import admit, made, plan_of, put, sealed

MAIN, INSULIN, LAPSE = "risk_t2d_12m", "risk_insulin_3m", "risk_lapse"


@pytest.fixture
def home(world: Any) -> NodeHome:
    """Hospital 1 after three runs: r1 of risk and segments, r2 of insulin, r3 of the risk again, without segments."""
    home = NodeHome(world.homes / "h1")
    for run, plan, seed in (
        ("r1", plan_of(world.plan, "t2d_12m", segments=True), 1),
        ("r2", plan_of(world.plan, "insulin_3m"), 2),
        ("r3", plan_of(world.plan, "t2d_12m"), 3),
    ):
        admit(world, run, plan)
        put(world, home.models, made(plan, run, seed))
    return home


def served(choice: Choice) -> dict[str, str]:
    """Column -> the run whose model fills it."""
    return {one.name: one.run for one in choice.serving}


def choice_of(home: NodeHome, run: str | None = None) -> Choice:
    return serving_models(home, load_catalogue("cardiometabolic"), tag_policy(home), run)


def test_each_column_has_the_newest_model_of_its_own(home: NodeHome) -> None:
    assert served(choice_of(home)) == {MAIN: "r3", INSULIN: "r2", "segment": "r1"}
    assert choice_of(home).left_out == ()


def test_as_it_was_when_a_run_was_the_newest(home: NodeHome) -> None:
    assert served(choice_of(home, "r1")) == {MAIN: "r1", "segment": "r1"}
    assert served(choice_of(home, "r2")) == {MAIN: "r1", INSULIN: "r2", "segment": "r1"}
    assert served(choice_of(home, "r3")) == served(choice_of(home))
    with pytest.raises(OperatorError, match="model-missing"):
        choice_of(home, "r9")


def test_a_run_alone_serves_as_ever(world: Any) -> None:
    home = NodeHome(world.homes / "h1")
    assert (served(choice_of(home)), choice_of(home).left_out) == ({}, ())
    admit(world, "r1", world.plan)
    put(world, home.models, made(world.plan, "r1"))
    assert served(choice_of(home)) == {MAIN: "r1", "segment": "r1"}


def test_models_on_another_catalogue_are_left_out_and_said(world: Any, home: NodeHome) -> None:
    foreign = plan_of(world.plan, "t2d_12m", segments=True, catalogue_sha256="0" * 64)
    admit(world, "r4", foreign)
    put(world, home.models, made(foreign, "r4"))
    choice = choice_of(home)
    assert served(choice) == {MAIN: "r3", INSULIN: "r2", "segment": "r1"}
    assert [(one.run, one.name, one.reason) for one in choice.left_out] == [
        ("r4", MAIN, "model-catalogue"),
        ("r4", "segment", "model-catalogue"),
    ]
    newer = plan_of(world.plan, "t2d_12m", segments=True)
    admit(world, "r5", newer)
    put(world, home.models, made(newer, "r5"))
    assert choice_of(home).left_out == (), "what a newer one serves for is not worth a word"


def test_the_officer_withdraws_one_model_and_the_one_before_serves(home: NodeHome) -> None:
    chosen = {one.name: one.bundle.sha256() for one in choice_of(home).serving}
    shipped = (conf_dir() / "tags" / "policy" / "guards.yaml").read_text()
    write_file(
        home.root / "tags-policy.yaml", f"{shipped}withdrawn_models: [{chosen[MAIN]}, {chosen[INSULIN]}]\n".encode()
    )
    choice = choice_of(home)
    assert served(choice) == {MAIN: "r1", "segment": "r1"}
    assert {(one.run, one.name, one.reason) for one in choice.left_out} == {
        ("r3", MAIN, "model-withdrawn"),
        ("r2", INSULIN, "model-withdrawn"),
    }


def test_a_changed_file_stops_where_it_is_the_newest_and_is_left_out_where_it_is_older(home: NodeHome) -> None:
    def flip(run: str) -> None:
        path = home.models / run / SIGNED
        body = path.read_bytes()
        path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    flip("r2")
    choice = choice_of(home)
    assert served(choice) == {MAIN: "r3", "segment": "r1"}
    assert [(one.run, one.name, one.reason) for one in choice.left_out] == [("r2", "", "model-unreadable")]
    flip("r3")
    with pytest.raises(CameoError):
        choice_of(home)


def test_a_foreign_signature_serves_nowhere(world: Any, home: NodeHome) -> None:
    with pytest.raises(CameoError):
        choose(home.models, ("r3",), bytes(32), load_catalogue("cardiometabolic"))


def test_tags_of_two_runs_stand_side_by_side_and_name_their_models(world: Any, home: NodeHome) -> None:
    node, now = world.first, datetime.now(UTC)
    local = node.local()
    with TagStore(home.tags) as tags:
        for path in pack_paths(home, local.catalogue.id):
            desk.approve_pack(tags, path, local.catalogue, "officer", now)
    outcome = tag_patients(home, local, node.consents, None, now)
    assert {(one.name, one.run) for one in outcome.world.given.models} == {
        (MAIN, "r3"), (INSULIN, "r2"), ("segment", "r1"),
    }  # fmt: skip
    with TagStore(home.tags) as tags:
        rows, last = tags.tags(now), tags.last_run()
        ward = open_ward(home, local, node.consents, None, now)
        answer = desk.explain(pack_paths(home, local.catalogue.id), ward, tags, local.pseudonyms[0], "t2d-risk-high")
    found = {(row.model, row.model_run) for row in rows}
    assert ("segment", "r1") in found
    assert ("", "") in found
    assert all(run == {MAIN: "r3", INSULIN: "r2", "segment": "r1", "": ""}[model] for model, run in found)
    assert last is not None
    assert {one["run"] for one in last["models"]} == {"r1", "r2", "r3"}
    assert [(one["name"], one["run"]) for one in answer["models"]] == [(MAIN, "r3")]
    assert f"model {MAIN} of run r3" in text(answer)
    lapse = next(item for item in outcome.world.rules if LAPSE in item.models)
    assert not outcome.candidates[lapse.key].any()
    assert outcome.world.unknown[lapse.key].any(), "without a model the answer is unknown"


def test_each_model_has_an_age_of_its_own(world: Any, home: NodeHome) -> None:
    old = (datetime.now(UTC) - timedelta(days=400)).timestamp()
    os.utime(home.models / "r2" / SIGNED, (old, old))
    local, now = world.first.local(), datetime.now(UTC)
    ward = open_ward(home, local, world.first.consents, None, now)
    with TagStore(home.tags) as tags:
        outcome = desk.evaluate(pack_paths(home, local.catalogue.id), replace(ward), tags, trial=True)
    models = {model.name: model for model in outcome.world.given.models}
    assert (now - models[INSULIN].released).days >= 399 > (now - models[MAIN].released).days
    failing = {(key, reason) for key, reason, rows in model_is_good(outcome.world, {}) if reason == "model-too-old"}
    assert {key.split("/")[1] for key, _ in failing} == {"insulin-need-3m"}


def test_diff_between_two_states_of_the_models(world: Any, home: NodeHome, capsys: pytest.CaptureFixture[str]) -> None:
    home.roles.write_bytes(to_yaml(added(None, Person(name="C. Operator", roles=("operator",)))))
    compare_models("r1", "r2", "C. Operator", home.root, True)
    answer = json.loads(capsys.readouterr().out)
    assert [{one["name"]: one["run"] for one in answer[side]["models"]} for side in ("before", "after")] == [
        {MAIN: "r1", "segment": "r1"},
        {MAIN: "r1", INSULIN: "r2", "segment": "r1"},
    ]
    changed = [row for row in answer["tags"] if row["added"] or row["removed"]]
    assert all(row["models"] == [INSULIN] for row in changed), "a run of one label takes nothing from the others"


def test_a_publication_told_to_the_node_leaves_the_models_of_other_labels(world: Any, home: NodeHome) -> None:
    plan = plan_of(world.plan, "lapse")
    admit(world, "r4", plan)
    answer = world.first.hospital.handle(Packet(PUBLISH, sealed(world, made(plan, "r4"))))
    assert answer.kind == PUBLISH
    assert world.first.published.get_nowait() == "r4"
    assert served(choice_of(home)) == {MAIN: "r3", INSULIN: "r2", "segment": "r1", LAPSE: "r4"}


def test_rows_of_an_earlier_version_are_still_read(world: Any, home: NodeHome) -> None:
    node, now = world.first, datetime.now(UTC)
    local = node.local()
    with TagStore(home.tags) as tags:
        for path in pack_paths(home, local.catalogue.id):
            desk.approve_pack(tags, path, local.catalogue, "officer", now)
        tag_patients(home, local, node.consents, None, now)
        row = next(row for row in tags.tags(now) if row.model_run)
    assert tag_of(values_of(row)) == row
    assert tag_of(values_of(row)[:-1]) == replace(row, model_run="")
    for wrong in (values_of(row)[:-2], [*values_of(row), "more"]):
        with pytest.raises(ValueError, match="zip"):
            tag_of(wrong)


def test_the_folder_of_models_may_hold_other_files(home: NodeHome, tmp_path: Path) -> None:
    (home.models / "notes.txt").write_text("mine")
    (home.models / "r0").mkdir()
    assert served(choice_of(home)) == {MAIN: "r3", INSULIN: "r2", "segment": "r1"}


def numbered(world: Any, run: str, centres: Any, former: Any = None, **changes: Any) -> bytes:
    """A sealed publication of a run whose segments are numbered. former: (its run, its centres)."""
    plan = plan_of(world.plan, "t2d_12m", segments=True)
    if run not in world.first.ledger.runs():
        admit(world, run, plan)
    task = next(task for task in plan.trained() if isinstance(task, SegmentTask))
    found = number(centres, former[1] if former else None)
    named = (
        Former(run=former[0], model=changes.get("model") or segment_of(world, former[0]).sha256()) if former else None
    )
    at = changes.pop("at", datetime(2026, 11, 1, tzinfo=UTC))
    entry = card_entry(found, run, named, None, at, first=former is None)
    order = changes.pop("order", found.order)
    message = made(plan, run, 1, {task.name: centres[list(order)]}, {task.name: entry})
    return sealed(world, message)


def segment_of(world: Any, run: str) -> ModelBundle:
    home = NodeHome(world.homes / "h1")
    return load_published(home.models, run, bytes.fromhex(world.first.federation.coordinator)).models["segment"]


def test_segment_numbers_are_held_against_the_former_model_that_is_stored_here(world: Any) -> None:
    def told(body: bytes) -> str:
        answer = world.first.hospital.handle(Packet(PUBLISH, body))
        return error_code(answer.body) if answer.kind == "error" else answer.kind

    task = next(task for task in world.plan.trained() if isinstance(task, SegmentTask))
    old = np.random.default_rng(1).uniform(-1, 1, (task.clusters, task.encoded.dim // task.clusters))
    old = old[np.argsort(old[:, 0])]
    assert told(numbered(world, "r1", old, order=(1, 0, 2, 3))) == "card-segments", "a first model out of order"
    assert told(numbered(world, "r1", old)) == PUBLISH
    new = old[[2, 0, 3, 1]] + 0.01
    assert told(numbered(world, "r2", new, ("r1", old), order=(0, 1, 2, 3))) == "card-segments", "not carried over"
    assert told(numbered(world, "r2", new, ("r1", old), model="0" * 64)) == "card-segments", "no model of that run"
    assert told(numbered(world, "r2", new, ("r1", old))) == PUBLISH
    kept = centres_of(segment_of(world, "r2"))
    assert np.abs(kept - old).max() < 0.02, "segment 2 is still segment 2"
    unknown = ("r9", old)
    assert told(numbered(world, "r3", new, unknown, model="0" * 64)) == PUBLISH, "what is not here cannot be compared"


def test_a_publication_of_a_version_that_did_not_number_is_taken(world: Any, home: NodeHome) -> None:
    published = load_published(home.models, "r1", bytes.fromhex(world.first.federation.coordinator))
    assert (published.numberings, "segments" in published.card) == ({}, False)


def test_a_rule_on_a_segment_waits_for_a_new_approval_when_its_number_means_something_else(world: Any) -> None:
    """Run r2 leaves segment 1 where it was and moves the others; the pack was approved before."""
    home, node = NodeHome(world.homes / "h1"), world.first
    local = node.local()
    packs = pack_paths(home, local.catalogue.id)

    def apply() -> tuple[set[str], Counter[str]]:
        outcome = tag_patients(home, local, node.consents, None, datetime.now(UTC))
        fates = Counter(one.reason for one in outcome.decisions() if "segment" in one.rule.models)
        return {one.rule.rule.id for one in outcome.decisions(("stored",)) if "segment" in one.rule.models}, fates

    def approve() -> None:
        with TagStore(home.tags) as tags:
            for path in packs:
                desk.approve_pack(tags, path, local.catalogue, "officer", datetime.now(UTC))

    old = local.features[:4].astype(float)
    old = old[np.lexsort(old.T[::-1])]
    approve()
    assert world.first.hospital.handle(Packet(PUBLISH, numbered(world, "r1", old))).kind == PUBLISH
    before, fates = apply()
    assert "patient-group-one" in before
    assert len(before) > 1
    assert not fates["model-segment-changed"]
    new = np.vstack([old[:1], local.features[20:23]])
    later = datetime.now(UTC)
    body = numbered(world, "r2", new, ("r1", old), at=later)
    assert world.first.hospital.handle(Packet(PUBLISH, body)).kind == PUBLISH
    after, fates = apply()
    assert fates["model-segment-changed"]
    assert after == {"patient-group-one"}
    approve()
    with TagStore(home.tags) as tags:
        ward = open_ward(home, local, node.consents, None, datetime.now(UTC))
        desk.apply_packs(packs, ward, tags, changed_only=True)
        again = {row.rule.split("/")[1] for row in tags.tags(ward.now) if row.model == "segment"}
    assert len(again) > 1, "an approval concerns everybody, also where only the changed are evaluated"
