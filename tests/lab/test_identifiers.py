"""18 kinds of direct identifiers, 50 each, planted into a source of every kind: none comes out anywhere.

A whole run in this process: masked uploads, message bodies, ledgers, models, tags, the report, logs, what the commands
print, the errors of sources that are spoilt with identifiers, and every file that is left behind.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from identifier_kit import (  # fmt: skip
    EACH,
    KINDS,
    PERSON,
    Scanner,
    every_file,
    identifier,
    patterns,
    plant_fhir,
    plant_omop,
    plant_table,
    planted,
)

from cameo_client.cli import app
from cameo_client.consent.records import SCOPES, made_up
from cameo_client.consent.uses import ACTION
from cameo_client.data.catalogue import mapping_text
from cameo_client.data.pseudonyms import pseudonym
from cameo_client.home import DataConfig, NodeHome, load_pseudonym_key
from cameo_client.membership import accept, init_node, review
from cameo_client.node.service import Node, open_node
from cameo_client.tagging import pack_paths, tag_patients
from cameo_client.tags.desk import approve_pack
from cameo_client.tags.store import TagStore
from cameo_lab.demo.setting import DemoSite, Setting
from cameo_lab.demo.summary import conclude
from cameo_lab.generate.generator import generate
from cameo_lab.in_process import DirectExchange
from cameo_lab.local_postgres import copy_tables, local_postgres
from cameo_protocol.console import execute
from cameo_protocol.packet import Packet
from cameo_server.app import drive
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from cameo_server.membership import add_site, init_coordinator, issue_federation
from cameo_server.run.store import RunStore
from passed_audit import keep_passed_audit

OVERRIDES = ("training.rounds=2", "training.spare=2", "data.population=600", "deadlines.regroup=0")
SOURCES = ("table", "duckdb", "fhir", "postgresql")
SITES = range(1, 5)


@dataclass
class Federation:
    """Four hospitals, each with another kind of source. data: where the sources lie, out: everything else."""

    data: Path
    out: Path
    places: dict[str, str]

    def home(self, site: int) -> NodeHome:
        return NodeHome(self.out / "hospitals" / f"hospital-{site}")

    @property
    def coordinator(self) -> CoordinatorHome:
        return CoordinatorHome(self.out / "coordinator")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    root = tmp_path_factory.mktemp("identifiers")
    made = generate(root / "data", 4, 90, 7, formats=("table", "duckdb", "fhir"))
    ids = [[f"SYN-{site}-{row:07d}" for row in range(1, EACH + 1)] for site in SITES]
    columns = plant_table(made.sites[0].place("table"), ids[0])
    plant_omop(made.sites[1].place("duckdb"))
    plant_fhir(made.sites[2].place("fhir"), ids[2])
    plant_omop(made.sites[3].place("duckdb"))
    mapping = root / "own.yaml"
    shipped = mapping_text("cardiometabolic")
    mapping.write_text(shipped.replace("ignore: [synthetic]", f"ignore: [synthetic, {', '.join(columns)}]"))
    with local_postgres() as url:
        copy_tables(made.sites[3].place("duckdb"), url, "cdm")
        places = {
            "table": str(made.sites[0].place("table")), "duckdb": str(made.sites[1].place("duckdb")),
            "fhir": str(made.sites[2].place("fhir")), "postgresql": f"{url}&options=-csearch_path%3Dcdm",
        }  # fmt: skip
        mappings = {"table": str(mapping), "fhir": "cardiometabolic-fhir"}
        found = Federation(root / "data", root / "out", places)
        now = datetime.now(UTC)
        init_coordinator(found.coordinator, federation="demo", host="localhost", fleet_port=9999, now=now)
        for site, source in zip(SITES, SOURCES, strict=True):
            kind = source if source in ("table", "fhir") else "omop"
            data = DataConfig(kind=kind, path=places[source], mapping=mappings.get(source, "cardiometabolic-omop"))
            init_node(found.home(site), site=f"hospital-{site}", data=data, now=now)
            add_site(found.coordinator, found.home(site).card.read_bytes(), now)
        document = issue_federation(found.coordinator, now)
        for site in SITES:
            accept(found.home(site), review(found.home(site), document))
        yield found


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner(patterns())


def test_the_scanner_finds_each_kind_in_the_sources(federation: Federation, scanner: Scanner) -> None:
    """The control: what is searched for is there, in every source, and found in other encodings too."""
    assert len(KINDS) == 18
    assert all(len(set(planted(kind))) == EACH for kind in KINDS)
    for place in ("table", "duckdb", "fhir"):
        path = Path(federation.places[place])
        found = {kind for file in (every_file(path) if path.is_dir() else [path]) for kind in scanner.kinds_in(file.read_bytes())}  # noqa: E501  # fmt: skip
        assert found >= set(KINDS), place
    for text in ("917-64-3007", "QVARTEX001@MAILBOX.EXAMPLE", str(PERSON + 3)):
        assert scanner.kinds_in(f"xx {text} yy".encode())
    assert scanner.kinds_in(b"xx" + "917-64-3007".encode("utf-16-le")) == {"ssn"}
    assert not scanner.kinds_in(b"nothing of that kind " * 9)


def whole_run(federation: Federation, stack: ExitStack) -> tuple[list[bytes], dict[int, Node]]:
    """Consents, run, tags, report; returns every byte that passed between coordinator and hospitals."""
    passed: list[bytes] = []
    nodes = {site: open_node(federation.home(site), stack) for site in SITES}
    now = datetime.now(UTC)
    for node in nodes.values():
        node.consents.add(made_up(node.local().pseudonyms, SCOPES, now), now=now)

    def handler(site: int) -> object:
        def handle(packet: Packet) -> Packet:
            answer = nodes[site].hospital.handle(packet)
            passed.extend((packet.body, bytes(packet.vector), answer.body, bytes(answer.vector)))
            return answer

        return handle

    store = RunStore(federation.coordinator.runs / "r1")
    plan = keep_passed_audit(federation.coordinator, make_plan(federation.coordinator, OVERRIDES))
    store.create(plan.canonical())
    exchange = DirectExchange({100 + site: handler(site) for site in SITES})  # type: ignore[misc]
    drive(exchange, federation.coordinator, store, "r1", plan, {site: 100 + site for site in SITES})
    for site, node in nodes.items():
        home, local = federation.home(site), node.local()
        with TagStore(home.tags) as tags:
            for pack in pack_paths(home, local.catalogue.id):
                approve_pack(tags, pack, local.catalogue, "officer", now)
        assert tag_patients(home, local, node.consents, "r1", datetime.now(UTC))
    return passed, nodes


def report_of(federation: Federation) -> Path:
    sites = tuple(
        DemoSite(name=f"hospital-{site}", kind="table", data="", mapping="", consents=Path(), pseudonym_key=Path())
        for site in SITES
    )
    setting = Setting(title="Four sources", sites=sites, overrides=OVERRIDES, synthetic=True, note="Made up.")
    report, _ = conclude(federation.out, federation.coordinator.root, "r1", setting, {"setup": 1.0, "total": 1.0}, [])
    return report


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Everything that a command prints."""
    monkeypatch.setattr(sys, "argv", ["cameo-node", *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    execute(app, "cameo-node")
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return out + err


def test_no_identifier_leaves_a_source_of_any_kind(
    federation: Federation, scanner: Scanner, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with caplog.at_level(logging.DEBUG), ExitStack() as stack:
        passed, nodes = whole_run(federation, stack)
        shown = "".join(map(repr, (nodes, *(node.local() for node in nodes.values()))))
        events = list(RunStore(federation.coordinator.runs / "r1").events())
        assert [event["answer"] for event in events if event["event"] == "admission"] == ["accept"] * 4
        assert len(report_of(federation).read_bytes()) > 10_000
        for site in SITES:
            with TagStore(federation.home(site).tags) as tags:
                found = [repr((vars(one), tags.history(one.pseudonym))) for one in tags.tags(datetime.now(UTC))]
            assert found
            shown += "".join(found)
        shown += capsys.readouterr().out
    key = load_pseudonym_key(federation.home(1).pseudonym_key)
    name = pseudonym(key, identifier("mrn", 0))
    for site in SITES:
        at = ("--home", str(federation.home(site).root))
        for words in (("data", "describe"), ("data", "check", "--rows", "all"), ("consent", "counts"), ("status",)):
            shown += said(capsys, monkeypatch, *words, *at) + said(capsys, monkeypatch, *words, *at, "--json")
        shown += said(capsys, monkeypatch, "consent", "report", name, *at)
        shown += said(capsys, monkeypatch, "consent", "export", "--format", "fhir", *at)
    places = {
        "uploads and messages": b"\n".join(passed),
        "logs": "\n".join(record.getMessage() for record in caplog.records).encode(),
        "shown": shown.encode(),
    }
    for path in every_file(federation.out):
        places[str(path.relative_to(federation.out))] = path.read_bytes()
    assert {"report.html", "summary.json", "coordinator/runs/r1/card.json"} <= places.keys()
    for store in ("ledger.sqlite", "consent.sqlite", "tags.sqlite"):
        assert f"hospitals/hospital-3/{store}" in places
    leaks = {place: scanner.kinds_in(data) for place, data in places.items()}
    assert {place: kinds for place, kinds in leaks.items() if kinds} == {}
    # Whether this patient trains or is held out hangs on the hospital's key, which is a new one in every run.
    assert any(action in shown for action in ACTION.values())


def spoil_table(whole: Path, spoilt: Path) -> None:
    lines = [line.split(",") for line in whole.read_text().splitlines()]
    for row, kind in enumerate(KINDS):
        lines[row + 1][lines[0].index("age")] = identifier(kind, row).replace(",", ";")
    spoilt.write_text("".join(",".join(line) + "\n" for line in lines))


def spoil_omop(whole: Path, spoilt: Path) -> None:
    spoilt.write_bytes(whole.read_bytes())
    with duckdb.connect(str(spoilt)) as db:
        db.execute("ALTER TABLE measurement ALTER COLUMN value_as_number TYPE VARCHAR")
        for row, kind in enumerate(KINDS):
            words, person = identifier(kind, row), PERSON + row + 1
            db.execute("UPDATE measurement SET value_as_number = ? WHERE person_id = ?", [words, person])


def spoil_fhir(whole: Path, spoilt: Path) -> None:
    spoilt.mkdir()
    (spoilt / "Patient.ndjson").write_bytes((whole / "Patient.ndjson").read_bytes())
    with (spoilt / "Observation.ndjson").open("w") as file:
        for row, kind in enumerate(KINDS):
            words, subject = identifier(kind, row), {"reference": f"Patient/{identifier('mrn', row)}"}
            code = {"coding": [{"system": "http://loinc.org", "code": "39156-5"}]}
            bad = {"resourceType": "Observation", "status": "final", "effectiveDateTime": words + "?",
                   "subject": subject, "valueString": words, "code": code}  # fmt: skip
            file.write(json.dumps(bad) + "\n" + json.dumps(bad | {"effectiveDateTime": "2026-01-01"})[:-9] + "\n")


SPOIL = {"table": spoil_table, "duckdb": spoil_omop, "fhir": spoil_fhir}


@pytest.mark.parametrize("source", SPOIL)
def test_a_source_spoilt_with_identifiers_is_refused_without_naming_one(
    source: str, federation: Federation, scanner: Scanner, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Identifiers of all kinds where a number, a code or a date belongs: the load stops, and no message holds one."""
    of, whole, spoilt = federation.home(SOURCES.index(source) + 1), Path(federation.places[source]), tmp_path / "spoilt"
    SPOIL[source](whole, spoilt)
    home = NodeHome(tmp_path / "home")
    home.pseudonym_key.parent.mkdir(parents=True)
    config = of.config.read_text()
    assert str(whole) in config
    home.config.write_text(config.replace(str(whole), str(spoilt)))
    home.pseudonym_key.write_bytes(of.pseudonym_key.read_bytes())
    home.pseudonym_key.chmod(0o600)
    shown = ""
    with caplog.at_level(logging.DEBUG):
        for words in (("data", "describe"), ("data", "check"), ("data", "check", "--rows", "all", "--json")):
            one = said(capsys, monkeypatch, *words, "--home", str(home.root))
            assert "data-" in one or "fhir-" in one, one
            shown += one
    shown += "".join(record.getMessage() for record in caplog.records)
    assert scanner.kinds_in(shown.encode()) == set()
