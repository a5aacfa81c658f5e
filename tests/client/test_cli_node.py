"""`cameo-node` from init to doctor, as a person at the keyboard meets it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.cli import app
from cameo_client.home import NodeHome
from cameo_client.ledger import Caps
from cameo_client.membership import identity_bytes
from cameo_client.node.service import open_ledger
from cameo_client.running import alone
from cameo_client.source import read
from cameo_protocol.console import execute
from cameo_protocol.federation import Federation, read_card, write_federation
from cameo_protocol.plan import Cohort, RunPlan, Site, parse_plan
from cameo_protocol.privacy.releases import Release, plan_releases

COORDINATOR = Ed25519PrivateKey.generate()
CA_PEM = """-----BEGIN CERTIFICATE-----
MIIBezCCASKgAwIBAgIUSOxXuk+0fdcI35F7CmLGFcH4rM4wCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHdGVzdCBDQTAeFw0yNjExMjQwODA3MDhaFw00NjExMjQwODA3
MDhaMBIxEDAOBgNVBAMMB3Rlc3QgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARoV4ZFX6+ZPzsKgM/g4C7lszTVUdEGv4f0YyuHiMw091ehOpMnoczPMn6/UJ+i
R/qLJ+8RXPHFXhTL0hi7l6abo1YwVDAdBgNVHQ4EFgQUX0SrTgZMz/Eg0H2Wjx8y
ZPnO9AIwHwYDVR0jBBgwFoAUX0SrTgZMz/Eg0H2Wjx8yZPnO9AIwEgYDVR0TAQH/
BAgwBgEB/wIBADAKBggqhkjOPQQDAgNHADBEAiAcDKYjyPTJWL5iAOtusx9UsVIB
q3Lzml5nb2UWj4EQaQIgdknwsIubPfRCUFzbwjFqJp1gR3ML5vi6lme+GR+fPxA=
-----END CERTIFICATE-----
"""


class Shell:
    """Runs `cameo-node` in this process."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = NodeHome(home)
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setenv("XDG_STATE_HOME", str(home.parent))

    def __call__(self, *words: str, answer: str = "") -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["cameo-node", *words])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = execute(app, "cameo-node")
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    def json(self, *words: str) -> dict[str, Any]:
        code, out, _ = self(*words, "--json")
        assert code == 0
        value: dict[str, Any] = json.loads(out)
        assert value["schema_version"] == 1
        return value


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path / "cameo-node", monkeypatch, capsys)


def init(shell: Shell) -> dict[str, Any]:
    (shell.home.root.parent / "x.csv").touch()
    return shell.json("init", "--name", "hospital-1", "--source", "table", "--data", "x.csv", "--mapping", "heart")


def write_data(folder: Path, patients: int = 40) -> None:
    """A table that the mapping `heart` reads, of people who never were."""
    rows = [f"{40 + i % 30},{i % 2},1,{120 + i},{200 + i},0,0,150,0,1.5,2,0,3,{i % 3}\n" for i in range(patients)]
    (folder / "x.csv").write_text("".join(rows))


def federation_file(shell: Shell, n: int = 4, serial: int = 1) -> Path:
    own = read_card(shell.home.card.read_bytes()).identity
    sites = tuple(Site(name=f"hospital-{i}", index=i, identity=own if i == 1 else f"{i:064x}") for i in range(1, n + 1))
    federation = Federation(
        name="demo",
        serial=serial,
        issued="2026-11-24T08:00:00Z",
        host="127.0.0.1",
        fleet_port=1,
        ca_pem=CA_PEM,
        coordinator=identity_bytes(COORDINATOR).hex(),
        cohort=Cohort(sites=sites, threshold=2 * n // 3 + 1, colluders=1),
    )
    path = shell.home.root.parent / f"federation-{serial}.json"
    path.write_bytes(write_federation(federation, COORDINATOR))
    return path


def plan_file(shell: Shell, epsilon: float = 3.0) -> Path:
    accepted = json.loads(shell.home.federation.read_bytes())["body"]["cohort"]
    encoded = {"dim": 10, "clip": 1.0, "bound": 9.0, "scale": 8, "sigma": 4.0}
    task = {"kind": "segment", "clusters": 3, "temperature": 1.0, "rate": 0.1, "share": 1.0, "encoded": encoded}
    plan = RunPlan.model_validate(
        {
            "name": "test",
            "seed": 1,
            "data": {"catalogue": "heart", "catalogue_sha256": "ab" * 32, "holdout": 0.2},
            "cohort": accepted,
            "privacy": {"mode": "distributed", "epsilon": epsilon, "delta": 1e-5, "population": 920},
            "training": {"rounds": 3, "spare": 0},
            "tasks": [task],
        }
    )
    path = shell.home.root.parent / "plan.json"
    path.write_bytes(plan.canonical())
    return path


def test_init_tells_what_to_send_and_refuses_a_second_time(shell: Shell) -> None:
    told = init(shell)
    assert told["fingerprint"] == read_card(Path(told["public_card"]).read_bytes()).fingerprint()
    code, _, err = shell("init", "--name", "hospital-1", "--source", "table", "--data", "x")
    assert (code, "already-initialised" in err) == (2, True)


def test_a_relative_path_is_kept_absolute_and_a_mapping_name_as_it_is(shell: Shell) -> None:
    init(shell)
    text = shell.home.config.read_text()
    assert f'path = "{Path("x.csv").absolute()}"' in text
    assert 'mapping = "heart"' in text


def test_init_of_data_that_are_not_there_makes_no_keys(shell: Shell) -> None:
    code, _, err = shell("init", "--name", "h", "--source", "table", "--data", "gone.csv", "--mapping", "heart")
    assert (code, "source-missing" in err, str(Path("gone.csv").absolute()) in err) == (6, True, True)
    assert not shell.home.root.exists()


def test_init_takes_an_earlier_pseudonym_key(shell: Shell, tmp_path: Path) -> None:
    init(shell)
    other = tmp_path / "other"
    words = ("init", "--name", "h", "--source", "table", "--data", "x.csv", "--mapping", "heart")
    words = (*words, "--home", str(other))
    assert shell(*words, "--pseudonym-key-file", str(shell.home.pseudonym_key))[0] == 0
    assert NodeHome(other).pseudonym_key.read_bytes() == shell.home.pseudonym_key.read_bytes()
    (tmp_path / "bad").write_text("no key")
    (tmp_path / "bad").chmod(0o600)
    assert shell(*words, "--pseudonym-key-file", str(tmp_path / "bad"))[0] == 5


def test_accept_shows_every_fingerprint_and_asks(shell: Shell) -> None:
    init(shell)
    path = str(federation_file(shell))
    code, _, err = shell("accept", path, answer="n\n")
    assert (code, shell.home.policy.exists()) == (2, False)
    for name in ("hospital-1", "hospital-2", "hospital-3", "hospital-4", "coordinator", "CA"):
        assert name in err
    assert "not with the coordinator" in err
    code, out, _ = shell("accept", path, answer="y\n")
    assert (code, shell.home.policy.exists()) == (0, True)
    assert "cameo-node doctor" in out


def test_accept_again_shows_only_what_changed(shell: Shell) -> None:
    init(shell)
    shell("accept", str(federation_file(shell)), "--yes")
    code, out, err = shell("accept", str(federation_file(shell)))
    assert (code, "nothing has changed" in out, err) == (0, True, "")
    code, _, err = shell("accept", str(federation_file(shell, 5, serial=2)), "--yes")
    assert code == 0
    assert "hospital-5" in err
    assert "hospital-2" not in err
    assert "threshold 3 -> 4" in err


def test_accept_of_a_smaller_roster_in_a_run_says_what_that_means(shell: Shell) -> None:
    init(shell)
    shell("accept", str(federation_file(shell, 5)), "--yes")
    smaller = str(federation_file(shell, 4, serial=2))
    code, _, err = shell("accept", smaller, answer="n\n")
    assert (code, "No longer in the roster: hospital-5" in err, "no further part" in err) == (2, True, False)
    with open_ledger(shell.home) as ledger:
        ledger.reserve("r-17", "1" * 64, (("risk", Release(sigma=50.0, q=1.0, count=2)),), Caps(dataset=8, year=3))
    code, _, err = shell("accept", smaller, answer="n\n")
    assert (code, "Run r-17 was planned with them: after a yes this hospital takes no further part" in err) == (2, True)


def test_accept_of_garbage_is_an_error_with_a_next_step(shell: Shell, tmp_path: Path) -> None:
    init(shell)
    (tmp_path / "garbage").write_bytes(b"\x00\xff")
    for path in (tmp_path / "garbage", tmp_path / "missing", tmp_path, shell.home.card):
        code, _, err = shell("accept", str(path), "--yes")
        assert code == 2
        assert "next:" in err
    assert not shell.home.policy.exists()


def test_status_before_and_after(shell: Shell) -> None:
    assert shell("status")[0] == 2
    init(shell)
    assert shell.json("status")["accepted"] is False
    shell("accept", str(federation_file(shell)), "--yes")
    status = shell.json("status")
    assert (status["federation"], status["index"], status["running"]) == ("demo", 1, False)
    assert "hospital-4" in shell("status")[1]


def test_status_tells_a_dead_process_from_a_living_one(shell: Shell) -> None:
    init(shell)
    state = shell.home.root / "state.json"
    state.write_text(json.dumps({"agent": "online", "node_id": 1, "tags": {"run": "r"}, "pid": 1}))
    with alone(shell.home):
        assert shell.json("status")["agent"] == "online"
        assert shell.json("status")["running"] is True
    found = shell.json("status")
    assert (found["agent"], found["running"]) == ("stopped", False)
    state.write_text("{")
    assert shell.json("status")["running"] is False


def test_doctor_names_each_fault_and_its_exit_code(shell: Shell) -> None:
    init(shell)
    write_data(shell.home.root.parent)
    code, out, _ = shell("doctor")
    assert (code, "failed   federation" in out) == (2, True)
    assert "membership" not in out, "what needs the federation stays silent"
    shell("accept", str(federation_file(shell)), "--yes")
    code, out, _ = shell("doctor", "--json")
    found = {check["name"]: check["severity"] for check in json.loads(out)["checks"]}
    assert code == 0
    assert found["coordinator"] == "warning"
    assert set(found.values()) == {"ok", "warning"}
    assert json.loads(out)["silent"] == ["clock", "roster", "patients"], "nobody answers or agreed"
    write_data(shell.home.root.parent, patients=5)
    assert shell("doctor")[0] == 3
    (shell.home.root.parent / "x.csv").unlink()
    assert shell("doctor")[0] == 6
    shell.home.identity_key.chmod(0o644)
    assert shell("doctor")[0] == 5


def test_doctor_says_what_is_left_of_the_budget(shell: Shell) -> None:
    from cameo_client.node.service import open_ledger

    init(shell)
    shell("accept", str(federation_file(shell)), "--yes")
    assert "nothing spent yet of epsilon 8 for ever, 3 a year" in shell("doctor")[1]
    open_ledger(shell.home).shut()
    told = shell("doctor")[1]
    assert "epsilon left: 8.000 for ever, 3.000 this year; what fits: cameo-node policy check PLAN" in told
    assert "cameo-node policy check PLAN" in shell("ledger")[1]
    assert shell.json("ledger")["caps"]["left_year"] == 3.0


def test_doctor_sends_nobody_to_start_what_runs(shell: Shell) -> None:
    init(shell)
    write_data(shell.home.root.parent)
    shell("accept", str(federation_file(shell)), "--yes")
    assert "Next: cameo-node start" in shell("doctor")[1]
    with alone(shell.home):
        code, out, _ = shell("doctor")
    assert (code, "Next: cameo-node start" in out) == (0, False)


def test_doctor_misses_an_unapproved_peer(shell: Shell) -> None:
    init(shell)
    shell("accept", str(federation_file(shell)), "--yes")
    rows = [row for row in shell.home.policy.read_text().splitlines(keepends=True) if "hospital-4" not in row]
    shell.home.policy.write_text("".join(rows))
    code, out, _ = shell("doctor")
    assert (code, "hospital-4" in out) == (4, True)


def test_policy_check_accepts_and_names_the_line(shell: Shell) -> None:
    init(shell)
    shell("accept", str(federation_file(shell)), "--yes")
    assert shell.json("policy", "check")["valid"] is True
    assert shell.json("policy", "check", str(plan_file(shell)))["accepted"] is True
    code, out, _ = shell("policy", "check", str(plan_file(shell, epsilon=4.0)))
    rows = shell.home.policy.read_text().splitlines()
    line = next(i for i, row in enumerate(rows, 1) if "epsilon_per_year" in row)
    assert code == 4
    assert f"policy.yaml:{line} caps.epsilon_per_year" in out
    code, out, _ = shell("policy", "check", str(plan_file(shell, epsilon=4.0)), "--json")
    assert json.loads(out)["refusals"][0]["line"] == line


def test_policy_check_holds_a_plan_against_the_ledger_too(shell: Shell) -> None:
    init(shell)
    shell("accept", str(federation_file(shell)), "--yes")
    plan = plan_file(shell)
    asked = parse_plan(plan.read_bytes())
    with open_ledger(shell.home) as book:
        book.reserve("r1", "ab" * 32, (("other", Release(sigma=1.0, q=1.0, count=1)),), Caps(dataset=8, year=8))
    code, out, _ = shell("policy", "check", str(plan))
    assert (code, "budget-spent" in out, "caps.epsilon_per_year" in out) == (4, True, True)
    code, out, _ = shell("policy", "check", str(plan), "--json")
    found = json.loads(out)
    assert (code, found["accepted"], found["refusals"], found["budget"]["code"]) == (4, False, [], "budget-spent")
    with open_ledger(shell.home) as book:
        book.close("r1")
    assert shell.json("policy", "check", str(plan))["accepted"] is True
    with open_ledger(shell.home) as book:
        book.reserve("r2", asked.plan_id(), plan_releases(asked), Caps(dataset=8, year=8))
    assert shell.json("policy", "check", str(plan))["accepted"] is True, "it holds its own room already"


def test_withdraw_takes_who_is_in_the_source_and_nobody_else(shell: Shell) -> None:
    init(shell)
    write_data(shell.home.root.parent)
    _, data = read(shell.home)
    known = data.facts["pseudonym"][0]
    assert shell.json("consent", "withdraw", known, "--scope", "all")["pseudonym"] == known
    code, _, err = shell("consent", "withdraw", "0" * 32, "--scope", "all")
    assert (code, "pseudonym-unknown" in err, "data source has" in err) == (2, True, True)


def test_what_can_be_no_pseudonym_is_refused_before_anything_is_said_of_it(shell: Shell) -> None:
    init(shell)
    assert shell("tags", "roles", "--add", "A. Auditor", "--role", "auditor")[0] == 0
    for words in (
        ("consent", "report", "MRN-1"),
        ("consent", "withdraw", "MRN-1", "--scope", "all"),
        ("tags", "access", "A" * 32, "--as", "A. Auditor"),
    ):
        code, out, err = shell(*words)
        assert (code, out, "cameo-node data pseudonym" in err) == (2, "", True)
        assert "MRN" not in err
    code, _, err = shell("consent", "withdraw", "0" * 32, "--scope", "x")
    assert (code, "no such --scope" in err) == (2, True)
    code, _, err = shell("consent", "withdraw", "0" * 32, "--scope", "all", "--method", "made_up")
    assert (code, "no such --method" in err) == (2, True)


def test_who_has_no_role_is_told_that_the_name_has_none(shell: Shell) -> None:
    init(shell)
    assert shell("tags", "roles", "--add", "A. Auditor", "--role", "auditor")[0] == 0
    for name in ("A. Auditor", "Nobody"):
        code, _, err = shell("tags", "queue", "--as", name)
        assert (code, "queue is for: reviewer; roles.yaml gives none of these to that name" in err) == (4, True)


def test_a_hash_that_is_none_is_told_before_the_log_is_read(shell: Shell) -> None:
    init(shell)
    code, _, err = shell("audit", "verify", "--seen", "0")
    assert (code, "checking" in err) == (2, False)


@pytest.mark.parametrize("name", ["c.csv", "c.ndjson"])
def test_a_file_of_consents_that_is_none_is_told_in_words(name: str, shell: Shell, tmp_path: Path) -> None:
    init(shell)
    (tmp_path / name).write_bytes(b"\xff\xfe")
    code, _, err = shell("consent", "import", name)
    assert (code, f"{name}: it is no UTF-8 text; nothing was imported" in err) == (6, True)
    (tmp_path / name).unlink()
    code, _, err = shell("consent", "import", name)
    assert (code, f"{name}: it cannot be read: No such file" in err) == (6, True)


def test_policy_check_refuses_what_is_no_plan_or_no_policy(shell: Shell, tmp_path: Path) -> None:
    init(shell)
    shell("accept", str(federation_file(shell)), "--yes")
    (tmp_path / "no-plan").write_text("{}")
    code, _, err = shell("policy", "check", str(tmp_path / "no-plan"))
    assert (code, "no-plan: not a plan of version 1" in err, "cameo plan --out plan.json" in err) == (2, True, True)
    shell.home.policy.write_text(shell.home.policy.read_text() + "\nversion: 1\n")
    code, _, err = shell("policy", "check")
    assert (code, "comes twice" in err) == (2, True)


def test_ledger_before_the_first_start(shell: Shell) -> None:
    init(shell)
    code, _, err = shell("ledger")
    assert (code, "ledger-none" in err) == (2, True)


def test_a_person_id_comes_from_standard_input_only(shell: Shell) -> None:
    init(shell)
    code, out, _ = shell("data", "pseudonym", answer="MRN-1\n")
    assert (code, len(out.strip())) == (0, 32)
    assert shell("data", "pseudonym")[0] == 2
    assert shell("data", "pseudonym", "MRN-1")[0] == 2


def test_a_source_of_an_unknown_kind_is_named(shell: Shell) -> None:
    code, _, err = shell("init", "--name", "h", "--source", "telepathy", "--data", "x")
    assert (code, "option-invalid" in err, "kind" in err) == (2, True, True)
    assert not shell.home.root.exists()


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield path, group


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_teaches_by_an_example(path: tuple[str, ...], shell: Shell) -> None:
    code, out, _ = shell(*path, "--help")
    assert code == 0
    assert f"Example:\n    cameo-node {' '.join(path)}" in out


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_without_a_home_is_an_error_that_says_what_to_do(path: tuple[str, ...], shell: Shell) -> None:
    needed = ["x" if isinstance(p, click.Argument) else f"{p.opts[0]}=x" for p in ALL[path].params if p.required]
    if path == ("init",):
        return  # makes the home
    code, out, err = shell(*path, *needed)
    assert code in (2, 6)
    assert "next:" in err or "Error" in err
    assert out == ""
    assert not shell.home.root.exists()
