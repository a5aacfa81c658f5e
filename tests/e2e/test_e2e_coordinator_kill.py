"""SIGKILL of the coordinator (three times), of the SuperLink, of the run's own process and of a hospital, for real."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cameo_client.consent.exchange import read_csv
from cameo_client.consent.store import ConsentStore
from cameo_client.home import DataConfig, NodeHome, load_pseudonym_key
from cameo_client.membership import accept, init_node, review
from cameo_lab.bench.local import free_port
from cameo_lab.demo import driver, setting
from cameo_lab.demo.setting import Setting
from cameo_lab.soak import Soak
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from cameo_server.membership import add_site, init_coordinator, issue_federation
from cameo_server.run.release_gate import keep
from passed_audit import passed_audit

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
# What is killed, and how often in its one run; scripts/soak.sh goes on from here.
KILLS = {"coordinator": 3, "superlink": 1, "server-app": 1, "hospital": 1}


def quick_set_up(layout: driver.Layout, chosen: Setting, *_: Any) -> None:
    """What the demo does with some twenty commands, here by their functions; and an audit that passed."""
    home, now = CoordinatorHome(layout.coordinator), datetime.now(UTC)
    ports = {f"{name}_port": free_port() for name in ("fleet", "operator", "join", "page")}
    init_coordinator(home, federation="soak", host=driver.HOST, now=now, **ports)
    nodes = [NodeHome(layout.hospital(site.name)) for site in chosen.sites]
    for node, site in zip(nodes, chosen.sites, strict=True):
        data = DataConfig.model_validate({"kind": site.kind, "path": site.data, "mapping": site.mapping})
        init_node(node, site=site.name, data=data, now=now, pseudonym_key=load_pseudonym_key(site.pseudonym_key))
        add_site(home, node.card.read_bytes(), now)
    federation = issue_federation(home, now)
    for node, site in zip(nodes, chosen.sites, strict=True):
        accept(node, review(node, federation))
        with ConsentStore.open(node.consent) as consents:
            consents.add(read_csv(site.consents, load_pseudonym_key(node.pseudonym_key)), now=now)
    keep(home, passed_audit(make_plan(home, chosen.overrides)))


@pytest.mark.parametrize(("name", "kills"), KILLS.items())
def test_a_killed_part_comes_back_and_the_run_is_published(
    name: str, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting, "SYNTHETIC_PATIENTS", 300)
    monkeypatch.setattr(driver, "_set_up", quick_set_up)
    monkeypatch.setattr(driver, "_audited", lambda *_: None)
    lines: list[str] = []
    once = Soak(name, kills, tmp_path / "soak", rounds=4 + kills, per_run=kills, say=lines.append)
    once.carry_out()
    assert once.done == kills, lines
    assert lines[-1].endswith(f"{kills} kills, nothing lost or doubled")
    log = (tmp_path / "soak" / "logs" / "coordinator.log").read_text()
    assert ("goes on: its process had died" in log) == (name in ("coordinator", "server-app"))
