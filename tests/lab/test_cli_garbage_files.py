"""Garbage in each file that people write: the command names the file and the line or key, in plain words."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cameo_client.cli import app as node_app
from cameo_client.home import NodeHome
from cameo_client.policy_file import parse_policy
from cameo_lab.cli import app as cameo_app
from cameo_protocol.confdir import conf_dir
from cameo_protocol.console import execute
from cameo_protocol.errors import OperatorError

FOREIGN = re.compile(
    r"Input should|Extra inputs|Field required|Value error|[Ss]tring should|pydantic|_type\b|_error\b|Traceback|"
    r"[A-Z]\w+Error"
)  # fmt: skip
Run = Callable[..., tuple[int, str]]


def call(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", list(words))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return execute(cameo_app if words[0] == "cameo" else node_app, words[0])


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, bytes]]:
    """A coordinator and a hospital, and all their files as they were made."""
    root = tmp_path_factory.mktemp("homes")
    (root / "x.csv").touch()
    (root / "own.yaml").write_bytes((conf_dir() / "sources" / "heart.yaml").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(root))
        patch.chdir(root)
        made = ("--name", "h", "--source", "table", "--data", "x.csv", "--mapping", "own.yaml")
        assert call(("cameo", "coordinator", "init"), patch) == call(("cameo-node", "init", *made), patch) == 0
    return root, {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def home(homes: tuple[Path, dict[Path, bytes]]) -> Iterator[Path]:
    """The folder of both, as it was made."""
    root, content = homes
    yield root
    for path in [path for path in root.rglob("*") if path.is_file()]:
        if path not in content:
            path.unlink()
        elif path.read_bytes() != content[path]:
            path.write_bytes(content[path])


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; its exit code, and all that it wrote."""
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setattr("tempfile.tempdir", str(home))

    def called(*words: str) -> tuple[int, str]:
        code = call(words, monkeypatch)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return called


def refused(result: tuple[int, str], *named: str) -> None:
    code, text = result
    assert code in (2, 4, 6), text
    assert not FOREIGN.search(text), text
    for word in named:
        assert word in text


ALWAYS = ("", "[]", "just words", "a: [", "\t", "version: 1\nversion: 1", "x: &a 1\ny: *a", "\x00")


@pytest.mark.parametrize("text", ALWAYS)
@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("cameo-node/roles.yaml", "cameo-node tags roles"),
        ("cameo-node/tags-policy.yaml", "cameo-node tags enforce-consent"),
        ("cameo-node/policy.yaml", "cameo-node policy check"),
        ("own.yaml", "cameo-node data describe"),
        ("cameo-node/node.toml", "cameo-node status"),
        ("cameo-coordinator/coordinator.toml", "cameo coordinator status"),
        ("pack.yaml", "cameo-node tags lint pack.yaml --catalogue heart"),
    ],
)
def test_what_is_no_such_file_at_all(file: str, command: str, text: str, run: Run, home: Path) -> None:
    (home / file).write_text(text)
    refused(run(*command.split()), Path(file).name)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('kind = "table"', 'kind = "tabel"', "data.kind: found 'tabel'; allowed is table, omop or fhir"),
        ('site = "h"', 'site = "A B"', "site: found a text; allowed is a name of"),
        ('site = "h"', "", "site: it is missing"),
        ("page_port = 9096", "page_port = 70000", "page_port: found 70000; allowed is at most 65535"),
        ("[data]", "[date]", "date: there is no such key; did you mean data?"),
        ("version = 1", "version = 2", "version: found 2; allowed is 1"),
    ],
)
def test_node_toml(old: str, new: str, named: str, run: Run, home: Path) -> None:
    path = home / "cameo-node" / "node.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    refused(run("cameo-node", "status"), "node.toml: ", named)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("fleet_port = 9092", "fleet_port = 0", "fleet_port: found 0; allowed is at least 1"),
        ("fleet_port = 9092", 'fleet_port = "x"', "fleet_port: found a text; allowed is a whole number"),
        ('host = "localhost"', 'host = "no host"', "host: not a host name or IP address"),
        ("fleet_port", "fleet_prot", "fleet_prot: there is no such key; did you mean fleet_port?"),
    ],
)
def test_coordinator_toml(old: str, new: str, named: str, run: Run, home: Path) -> None:
    path = home / "cameo-coordinator" / "coordinator.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    refused(run("cameo", "coordinator", "status"), "coordinator.toml: ", named)


POLICY = """version: 1
coordinator: "0000-0000-0000-0000-0000-0000-0000-0000-0000-0000"
peers: {}
caps:
  epsilon_per_year: 3
allowed: {tasks: [], models: [], privacy: [], catalogues: [], labels: []}
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "named"),
    [
        ("epsilon_per_year: 3", "epsilon_per_year: -1", 5, "caps.epsilon_per_year: found -1; allowed is more than 0"),
        ("epsilon_per", "epsilon_a", 5, "caps.epsilon_a_year: there is no such key; did you mean epsilon_per_year?"),
        ("peers: {}", "peers: []", 3, "peers: found a list; allowed is keys with values"),
        ("peers: {}", "peers: {a: b}", 3, "peers.a: found a text; allowed is a fingerprint"),
        ("peers: {}", "", 1, "peers: it is missing"),
        ("models: []", "models: [cnn]", 6, "allowed.models.0: found 'cnn'; allowed is logistic or mlp"),
    ],
)  # fmt: skip
def test_policy_yaml(old: str, new: str, line: int, named: str, run: Run, home: Path) -> None:
    assert parse_policy(POLICY.encode())
    NodeHome(home / "cameo-node").policy.write_text(POLICY.replace(old, new))
    refused(run("cameo-node", "policy", "check"), f"policy.yaml:{line}: {named}")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("privacy.epsilon=-1", "privacy.epsilon: found -1; allowed is more than 0"),
        ("privacy.epsilon=much", "privacy.epsilon: found a text; allowed is a number"),
        ("privacy.mode=global", "privacy.mode: found 'global'; allowed is distributed or local"),
        ("training.rounds=1.5", "training.rounds: found 1.5; allowed is a whole number"),
        ("training.rounds=[1]", "training.rounds: found a list; allowed is a whole number"),
        ("training=null", "training"),
        ("+training.round=3", "training.round: there is no such key; did you mean rounds?"),
        ("data.groups={sex: x}", "data.groups.sex: found a text; allowed is a list"),
        ("name=A B", "name: found a text; allowed is a name of"),
        ("seed=99999999999", "seed: found 99999999999; allowed is at most 2147483647"),
    ],
)
def test_overrides(override: str, named: str, run: Run) -> None:
    refused(run("cameo", "audit", "--plan", "--sites", "3", override), named)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("kind: table", "kind: excel", "kind: found 'excel'; allowed is table"),
        ("version: 1", "version: one", "version: found a text; allowed is a whole number"),
        ("title:", "titel:", "titel: there is no such key; did you mean title?"),
        ("facts:", "fact:", "fact: there is no such key; did you mean facts?"),
        ("catalogue: heart\n", "", "line 1: catalogue: it is missing"),
    ],
)
def test_a_mapping(old: str, new: str, named: str, run: Run, home: Path) -> None:
    text = (home / "own.yaml").read_text()
    assert old in text
    (home / "own.yaml").write_text(text.replace(old, new, 1))
    refused(run("cameo-node", "data", "describe"), "own.yaml, line ", named)


@pytest.mark.parametrize(
    ("person", "named"),
    [
        ("{name: B. Doctor, roles: [boss]}", "people.0.roles.0: found 'boss'; allowed is author, reviewer"),
        ("{name: X, roles: [author]}", "people.0.name: found a text; allowed is 3 to 60 characters"),
        ("{role: author}", "people.0.role: there is no such key; did you mean roles?"),
    ],
)  # fmt: skip
def test_roles_yaml(person: str, named: str, run: Run, home: Path) -> None:
    path = home / "cameo-node" / "roles.yaml"
    path.write_text(f"version: 1\npeople:\n- {person}\n")
    path.chmod(0o644)
    refused(run("cameo-node", "tags", "roles"), f"roles.yaml, line 3: {named}")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("contacts_per_day: 2", "contacts_per_day: 9", "contacts_per_day: found 9; allowed is at most 2"),
        ("start:", "begin:", "quiet.begin: there is no such key"),
        ("version: 1", "version: 2", "version: found 2; allowed is 1"),
    ],
)
def test_tags_policy_yaml(old: str, new: str, named: str, run: Run, home: Path) -> None:
    shipped = (conf_dir() / "tags" / "policy" / "guards.yaml").read_text()
    assert old in shipped
    (home / "cameo-node" / "tags-policy.yaml").write_text(shipped.replace(old, new, 1))
    refused(run("cameo-node", "tags", "enforce-consent"), "tags-policy.yaml, line ", named)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("ttl_days:", "ttl_day:", "there is no such key; did you mean ttl_days?"),
        ("review: ", "review: x", "review: found 'x"),
        ("version: ", "version: v", "version: found a text; allowed is a version, as 1.0.0"),
    ],
)
def test_a_pack(old: str, new: str, named: str, run: Run, home: Path) -> None:
    text = (conf_dir() / "tags" / "heart.yaml").read_text()
    assert old in text
    (home / "pack.yaml").write_text(text.replace(old, new, 1))
    refused(run("cameo-node", "tags", "lint", "pack.yaml", "--catalogue", "heart"), "pack.yaml:", named)


def test_the_address_of_a_database_is_never_told_with_its_password(run: Run, home: Path) -> None:
    for words in (("--data", "postgresql://cameo:hunter2@db/x"), ("--data", "x.csv", "--password-env", "hunter2!")):
        made = ("cameo-node", "init", "--name", "h", "--source", "omop", *words, "--home", str(home / "other"))
        code, text = run(*made)
        assert (code, "hunter2" in text, bool(FOREIGN.search(text))) == (2, False, False)


def test_our_own_words_are_kept() -> None:
    with pytest.raises(OperatorError, match="did you mean caps"):
        parse_policy(POLICY.replace("caps:", "cap:").encode())
