"""From a published model to tags: only under consent, only with models of this hospital's own catalogue."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cameo_client.cli.tags import compare_models
from cameo_client.consent.records import SCOPES, ConsentRecord
from cameo_client.home import NodeHome
from cameo_client.tagging import model_columns, pack_paths, serving_models, tag_patients, tag_policy
from cameo_client.tags.desk import approve_pack
from cameo_client.tags.roles import Person, added, to_yaml
from cameo_client.tags.store import TagStore
from cameo_protocol.errors import OperatorError
from cameo_protocol.stages import PUBLISH


def stored(home: NodeHome) -> list[Any]:
    with TagStore(home.tags) as tags:
        return [tag for tag in tags.tags(datetime.now(UTC)) if tag.state == "stored"]


def test_tags_appear_under_consent_and_go_with_it(world: Any) -> None:
    home, node = NodeHome(world.homes / "h1"), world.first
    local = node.local()
    packs = pack_paths(home, local.catalogue.id)
    assert node.hospital.handle(world.run_until(PUBLISH)).kind == PUBLISH
    with TagStore(home.tags) as tags:
        for pack in packs:
            approve_pack(tags, pack, local.catalogue, "officer", datetime.now(UTC))
    tag_patients(home, local, node.consents, None, datetime.now(UTC))
    found = {tag.pseudonym for tag in stored(home)}
    assert found
    gone = sorted(found)[0]
    now = datetime.now(UTC)
    node.consents.add(
        [
            ConsentRecord(
                pseudonym=gone,
                scope=scope,
                status="withdrawn",
                notice_version="1",
                notice_sha256="0" * 64,
                method="made_up",
                at=now,
            )
            for scope in SCOPES
        ],
        now=now,
    )
    tag_patients(home, local, node.consents, "r1", datetime.now(UTC))
    assert gone not in {tag.pseudonym for tag in stored(home)}

    choice = serving_models(home, local.catalogue, tag_policy(home))
    columns, models = model_columns(choice.serving, local)
    assert {model.name for model in models} < columns.keys()
    assert all(len(values) == len(local.pseudonyms) for values in columns.values())
    risk = next(values for name, values in columns.items() if name.startswith("risk_"))
    assert np.all((risk >= 0) & (risk <= 1))


def test_what_the_models_of_two_runs_change_on_the_command_line(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same run twice: nothing. Unknown people and runs: an error."""
    home, node = NodeHome(world.homes / "h1"), world.first
    assert node.hospital.handle(world.run_until(PUBLISH)).kind == PUBLISH
    home.roles.write_bytes(to_yaml(added(None, Person(name="C. Operator", roles=("operator",)))))
    compare_models("r1", "r1", "C. Operator", home.root, True)
    rows = json.loads(capsys.readouterr().out)["tags"]
    assert any(row["models"] for row in rows)
    assert all((row["added"], row["removed"], row["why_removed"]) == (0, 0, {}) for row in rows)
    for person, run, code in ((None, "r1", "role-lacking"), ("C. Operator", "r9", "model-missing")):
        with pytest.raises(OperatorError) as refused:
            compare_models("r1", run, person, home.root, True)
        assert refused.value.code == code


def test_a_run_without_stored_models_changes_no_tag(world: Any) -> None:
    home, node = NodeHome(world.homes / "h1"), world.first
    with pytest.raises(OperatorError) as refused:
        tag_patients(home, node.local(), node.consents, "r9", datetime.now(UTC))
    assert refused.value.code == "model-missing"
    assert not home.tags.exists()


def test_own_packs_come_before_shipped_ones_and_one_must_exist(world: Any) -> None:
    home = NodeHome(world.homes / "h1")
    assert pack_paths(home, "cardiometabolic")
    with pytest.raises(OperatorError) as refused:
        pack_paths(home, "unknown")
    assert refused.value.code == "tag-pack-missing"
    own = home.root / "packs" / "own.yaml"
    own.parent.mkdir()
    own.write_text("")
    assert pack_paths(home, "unknown") == pack_paths(home, "cardiometabolic") == (own,)
