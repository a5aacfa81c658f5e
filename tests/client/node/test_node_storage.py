"""What a node keeps on disk: the journal of releases, the ledger, published models; and the failpoints of tests."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cameo_client.data.catalogue import load_catalogue
from cameo_client.home import NodeHome
from cameo_client.ledger import Caps
from cameo_client.node import publication
from cameo_client.node.failpoints import Failpoints
from cameo_client.node.journal import DiskJournal
from cameo_client.node.publication import SIGNED, load_published, newest
from cameo_client.node.service import NodeState, open_node
from cameo_models.bundle import ModelBundle, parse_bundle
from cameo_models.shapes import parameter_count
from cameo_protocol.errors import CameoError, ExitCode, OperatorError, Reject
from cameo_protocol.packet import Packet
from cameo_protocol.privacy.releases import plan_releases
from cameo_protocol.stages import FINISH, PUBLISH, Publication, error_code
from cameo_server.home import load_ed25519


def test_a_release_is_recorded_once_and_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = DiskJournal(path)
    journal.record(b"t" * 32, 0, "upload", b"a" * 32)
    journal.record(b"t" * 32, 1, "upload", b"a" * 32)
    journal.record(b"t" * 32, 0, "reveal", b"a" * 32)
    journal.record(b"u" * 32, 0, "upload", b"a" * 32)
    journal.close()
    again = DiskJournal(path)
    for digest in (b"a" * 32, b"b" * 32):
        with pytest.raises(Reject) as refused:
            again.record(b"t" * 32, 0, "upload", digest)
        assert refused.value.code == "already-released"
    again.close()


def test_two_processes_on_one_journal_release_once(tmp_path: Path) -> None:
    one, other = DiskJournal(tmp_path / "journal"), DiskJournal(tmp_path / "journal")
    one.record(b"t", 0, "ack", b"a")
    with pytest.raises(Reject):
        other.record(b"t", 0, "ack", b"a")
    one.close()
    other.close()


def test_a_journal_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"this is no database at all" * 50)
    for path in (tmp_path / "missing" / "journal", tmp_path, tmp_path / "noise"):
        with pytest.raises(OperatorError) as refused:
            DiskJournal(path)
        assert refused.value.code == "journal-unusable"
        assert refused.value.exit_code == ExitCode.DATA


@pytest.mark.parametrize("pragma", ["PRAGMA query_only = ON", "PRAGMA max_page_count = 1"])
def test_a_journal_that_cannot_be_written_releases_nothing(tmp_path: Path, pragma: str) -> None:
    path = tmp_path / "journal"
    journal = DiskJournal(path)
    journal._db.execute(pragma)
    with pytest.raises(OperatorError) as refused:
        for round_no in range(200):
            journal.record(b"t" * 3000, round_no, "upload", b"a" * 3000)
    assert refused.value.code == "journal-unusable"
    with pytest.raises(OperatorError):
        journal.record(b"t" * 3000, round_no, "upload", b"a" * 3000)
    journal.close()
    with sqlite3.connect(path) as stored:
        rounds = [row[0] for row in stored.execute("SELECT round_no FROM released ORDER BY round_no")]
    assert rounds == list(range(round_no))


def test_a_ledger_that_is_gone_is_not_made_again(homes: Path) -> None:
    home = NodeHome(homes / "h1")
    with ExitStack() as stack:
        open_node(home, stack)
    home.ledger.unlink()
    with ExitStack() as stack, pytest.raises(OperatorError) as refused:
        open_node(home, stack)
    assert refused.value.code == "ledger-missing"
    assert refused.value.exit_code == ExitCode.POLICY
    assert not home.ledger.exists()


def test_a_node_does_not_start_on_an_audit_log_that_was_changed(homes: Path) -> None:
    home = NodeHome(homes / "h1")
    with ExitStack() as stack:
        node = open_node(home, stack)
        kinds = [entry.kind for entry, _ in node.audit.entries()]
    assert kinds[:2] == ["log-opened", "file-changed"], "what people had edited before is written down"
    with sqlite3.connect(home.audit) as db:
        triggers = [row[0] for row in db.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")]
        db.executescript("DROP TRIGGER entry_stays; UPDATE entry SET body = zeroblob(9) WHERE seq = 2")
        db.execute(triggers[0])
    with ExitStack() as stack, pytest.raises(OperatorError, match=r"audit-log-broken") as refused:
        open_node(home, stack)
    assert refused.value.exit_code == ExitCode.DATA


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"node_id": "x", "tags": {}}', b"\xff"])
def test_a_state_file_that_is_damaged_is_an_empty_state(homes: Path, content: bytes) -> None:
    home = NodeHome(homes / "h1")
    state = NodeState.load(home)
    state.update(agent="ready", node_id=12, tags={"run": "r1", "error": ""})
    kept = NodeState.load(home)
    assert (kept.agent, kept.node_id, kept.tags) == ("stopped", 12, {"run": "r1", "error": ""})
    state.path.write_bytes(content)
    assert NodeState.load(home) == NodeState(state.path)


def _resealed(world: Any, message: Publication, **changes: Any) -> bytes:
    fields = {"run": message.run, "plan_id": message.plan_id, "models": message.models, "card": message.card}
    return Publication(**{**fields, **changes}).seal(load_ed25519(world.coordinator.plan_key))


def _audit(card: bytes, **changes: Any) -> bytes:
    """The card with other words in its audit."""
    value = json.loads(card)
    value["audit"] |= changes
    return json.dumps(value).encode()


def test_a_publication_that_was_changed_is_refused_and_nothing_is_stored(world: Any) -> None:
    packet = world.run_until(PUBLISH)
    node, models = world.first, NodeHome(world.homes / "h1").models
    message = Publication.open(packet.body, bytes.fromhex(node.federation.coordinator))
    name, raw = next(iter(message.models.items()))
    other = {key: value for key, value in message.models.items() if key != name}
    flipped = raw[:-1] + bytes([raw[-1] ^ 1])
    swapped = dict(zip(message.models, reversed(message.models.values()), strict=True))
    cases = {
        "signature": packet.body[:-1] + bytes([packet.body[-1] ^ 1]),
        "cut": packet.body[:-1],
        "empty": b"",
        "path": _resealed(world, message, run="../r1"),
        "other run": _resealed(world, message, run="r2"),
        "no run": _resealed(world, message, run=""),
        "plan": _resealed(world, message, plan_id=bytes(32)),
        "no card": _resealed(world, message, card=b""),
        "card without a passed audit": _resealed(
            world, message, card=message.card.replace(b'"passed": true', b'"passed": false')
        ),
        **{
            f"audit of {name}": _resealed(world, message, card=_audit(message.card, **{name: value}))
            for name, value in (
                ("recipe", "0" * 64),
                ("claim", 50.0),
                ("lower_bound", -1.0),
                ("claim", None),
                ("lower_bound", "0"),
            )
        },
        "card of lists": _resealed(world, message, card=b"[]"),
        "card without models": _resealed(world, message, card=message.card.replace(b'"models"', b'"model_"')),
        "model missing": _resealed(world, message, models=other),
        "no models": _resealed(world, message, models={}),
        "model changed": _resealed(world, message, models={**message.models, name: flipped}),
        "models swapped": _resealed(world, message, models=swapped),
        "model is noise": _resealed(world, message, models={**message.models, name: b"noise"}),
    }
    held = node.ledger.held()
    for case, body in cases.items():
        answer = node.hospital.handle(Packet(PUBLISH, body))
        assert answer.kind == "error", case
        assert error_code(answer.body) != "failed-local", case
        assert newest(models, node.ledger.runs()) is None, case
        assert node.published.empty(), case
    assert node.ledger.held() == held
    assert (
        node.hospital.handle(Packet(FINISH, packet.body)).kind == "error"
    )  # a signature for one use is none for another
    assert node.hospital.handle(packet).kind == PUBLISH
    assert newest(models, node.ledger.runs()) == node.published.get_nowait() == "r1"
    assert node.ledger.reserved() == 0
    _check_stored(node, models)


def _check_stored(node: Any, models: Path) -> None:
    coordinator = bytes.fromhex(node.federation.coordinator)
    assert set(load_published(models, "r1", coordinator).models)
    with pytest.raises(OperatorError, match="model-missing"):
        load_published(models, "r2", coordinator)
    stored = models / "r1" / SIGNED
    body = stored.read_bytes()
    stored.chmod(0o600)
    stored.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(CameoError):
        load_published(models, "r1", coordinator)


def test_a_model_of_another_number_of_features_is_refused_whatever_it_says_of_itself(world: Any) -> None:
    packet = world.run_until(PUBLISH)
    node = world.first
    message = Publication.open(packet.body, bytes.fromhex(node.federation.coordinator))
    bundle = parse_bundle(message.models["segment"])
    features = bundle.facts.features + 1
    facts = bundle.facts.model_copy(update={"features": features})
    wider = ModelBundle(facts, np.zeros(parameter_count(bundle.task, features)))
    card = message.card.replace(bundle.sha256().encode(), wider.sha256().encode())
    body = _resealed(world, message, card=card, models={**message.models, "segment": wider.to_bytes()})
    answer = node.hospital.handle(Packet(PUBLISH, body))
    assert (answer.kind, error_code(answer.body)) == ("error", "model-foreign")
    assert newest(NodeHome(world.homes / "h1").models, node.ledger.runs()) is None


def test_models_of_a_run_not_joined_or_of_another_plan_than_the_one_followed_are_not_stored(world: Any) -> None:
    packet = world.run_until(PUBLISH)
    node, models = world.first, NodeHome(world.homes / "h1").models
    message = Publication.open(packet.body, bytes.fromhex(node.federation.coordinator))
    stranger = _resealed(world, message, run="r2", card=message.card.replace(b'"run": "r1"', b'"run": "r2"'))
    plan = world.plan.model_copy(update={"name": "another"})
    other = {}
    for name, raw in message.models.items():
        bundle = parse_bundle(raw)
        facts = bundle.facts.model_copy(update={"plan_id": plan.plan_id()})
        other[name] = ModelBundle(facts, bundle.parameters)
    hashes = {name: bundle.sha256() for name, bundle in other.items()}
    card = json.loads(message.card) | {"plan": plan.model_dump(mode="json"), "models": hashes}
    swapped = _resealed(
        world,
        message,
        plan_id=bytes.fromhex(plan.plan_id()),
        models={name: bundle.to_bytes() for name, bundle in other.items()},
        card=json.dumps(card).encode(),
    )
    for body, code in ((stranger, "run-unknown"), (swapped, "card-foreign")):
        answer = node.hospital.handle(Packet(PUBLISH, body))
        assert (answer.kind, error_code(answer.body)) == ("error", code)
        assert newest(models, node.ledger.runs()) is None
    assert node.hospital.handle(packet).kind == PUBLISH
    assert node.hospital.handle(packet).kind == PUBLISH, "told again, it is answered again"


def test_an_older_publication_told_again_is_left_as_it_is_and_tagged_no_more(world: Any) -> None:
    packet = world.run_until(PUBLISH)
    node, models = world.first, NodeHome(world.homes / "h1").models
    assert node.hospital.handle(packet).kind == PUBLISH
    assert node.published.get_nowait() == "r1"
    stored = models / "r1" / SIGNED
    before = stored.stat()
    assert node.hospital.handle(packet).kind == PUBLISH
    assert node.published.get_nowait() == "r1", "the newest may not have been tagged before a restart"
    message = Publication.open(packet.body, bytes.fromhex(node.federation.coordinator))
    later = _resealed(world, message, run="r2", card=message.card.replace(b'"run": "r1"', b'"run": "r2"'))
    node.ledger.reserve("r2", world.plan.plan_id(), plan_releases(world.plan), Caps(dataset=1e3, year=1e3))
    assert node.hospital.handle(Packet(PUBLISH, later)).kind == PUBLISH
    assert node.published.get_nowait() == "r2"
    os.utime(models / "r2" / SIGNED, (0, 0))  # as after a restore: the files' times say nothing
    assert node.hospital.handle(packet).kind == PUBLISH
    assert node.published.empty()
    after = stored.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert newest(models, node.ledger.runs()) == "r2"


def test_models_on_another_version_of_the_catalogue_are_refused(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packet = world.run_until(PUBLISH)
    node = world.first
    message = Publication.open(packet.body, bytes.fromhex(node.federation.coordinator))
    changed = load_catalogue("cardiometabolic").model_copy(update={"version": 2})
    monkeypatch.setattr(publication, "load_catalogue", lambda _name: changed)
    with pytest.raises(OperatorError, match="model-catalogue"):
        publication.read_publication(world.homes, message)


def test_failpoints_of_another_site_and_empty_ones_do_nothing() -> None:
    for spec in ("", ",", "b:point", "b:point@1,", "a:other"):
        points = Failpoints("a", spec)
        for _ in range(3):
            points.reach("point")


@pytest.mark.parametrize(("spec", "passed"), [("a:point", 0), ("a:point@3", 2), ("b:point,a:point@2,a:other", 1)])
def test_a_failpoint_kills_its_process_at_the_count(spec: str, passed: int) -> None:
    code = (
        "from cameo_client.node.failpoints import Failpoints\n"
        "points = Failpoints.from_environment('a')\n"
        "while True:\n    points.reach('point'); points.reach('free'); print('passed', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"CAMEO_FAILPOINTS": spec},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.count("passed") == passed
