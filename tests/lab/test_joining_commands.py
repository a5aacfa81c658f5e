"""`cameo-node join`, `accept`, `pause` and `leave` as typed, against a real coordinator, interrupted and repeated."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from joining_kit import Setting, Shell, setting, shell

from cameo_client import enrolment as node
from cameo_client.cli import enrolling
from cameo_client.home import load_config
from cameo_client.ledger import Caps
from cameo_client.node.service import open_ledger
from cameo_client.node.upkeep import Upkeep
from cameo_client.policy_file import load_policy
from cameo_client.running import alone, require_awake
from cameo_protocol.errors import OperatorError
from cameo_protocol.federation import read_card
from cameo_protocol.privacy.releases import Release
from cameo_server import enrolment as coordinator
from cameo_server import membership

__all__ = ["setting", "shell"]
SOURCE = ("--name", "hospital-a", "--source", "table", "--data", "x.csv", "--mapping", "heart")


def approve_when_asked(setting: Setting, monkeypatch: pytest.MonkeyPatch, *, interrupt: bool = False) -> None:
    """Somebody approves while the hospital waits; with `interrupt`, Ctrl-C comes first."""
    times = iter((interrupt, False))

    def wait() -> None:
        if next(times, False):
            raise KeyboardInterrupt
        setting.approve("hospital-a")

    monkeypatch.setattr(enrolling, "pause_a_little", wait)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of `SOURCE`, beside nothing else."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    (folder / "x.csv").touch()
    monkeypatch.chdir(folder)


@pytest.fixture
def others(setting: Setting) -> Setting:
    """Two hospitals are members already, so that the third completes the roster."""
    setting.knock("hospital-b")
    setting.knock("hospital-c")
    return setting


def join(shell: Shell, setting: Setting, token: str, *more: str, answer: str = "") -> tuple[int, str, str]:
    return shell("join", setting.address, "--token", token, *more, answer=answer)


def test_one_command_writes_everything(others: Setting, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    approve_when_asked(others, monkeypatch)
    code, out, err = join(shell, others, others.invite("hospital-a"), *SOURCE, answer="y\n")
    assert code == 0, err
    own = read_card(shell.home.card.read_bytes()).fingerprint()
    assert err.count(own) == 2, "to read to the coordinator, and among the peers"
    for name in ("hospital-b", "hospital-c"):
        assert name in err
    assert "Approve? [y/N]" in err
    assert load_policy(shell.home.policy).policy.peers["hospital-a"] == own
    assert shell.home.federation.read_bytes() == others.home.federation.read_bytes()
    assert {path.name for path in shell.home.root.iterdir()} >= {"cameo-node.service", "compose.yaml", "node.toml"}
    assert "cameo-node doctor" in out
    assert shell.json("status")["certificate_days"] == 89


def test_interrupted_at_any_point_the_same_command_goes_on(
    others: Setting, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = others.invite("hospital-a")
    approve_when_asked(others, monkeypatch, interrupt=True)
    assert join(shell, others, token, *SOURCE)[0] == 130
    keys = shell.home.identity_key.read_bytes()
    assert [site.state for site in others.states() if site.name == "hospital-a"] == ["waiting"]
    code, _, err = join(shell, others, token, *SOURCE, answer="n\n")
    assert (code, "not-confirmed" in err) == (2, True)
    assert shell.home.operator_cert.exists(), "approved: the certificate is here, the peers are not trusted yet"
    assert not shell.home.policy.exists()
    # The token is spent by now; it still says whose door this is, and the options need not be typed again.
    code, _, err = join(shell, others, token, "--yes")
    assert code == 0, err
    assert shell.home.identity_key.read_bytes() == keys
    assert join(shell, others, token, "--yes")[0] == 0


def test_a_changed_unit_file_is_not_written_over(
    others: Setting, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve_when_asked(others, monkeypatch)
    token = others.invite("hospital-a")
    assert join(shell, others, token, *SOURCE, "--yes")[0] == 0
    unit = shell.home.root / "cameo-node.service"
    unit.write_text("ours\n")
    assert join(shell, others, token, "--yes")[0] == 0
    assert unit.read_text() == "ours\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--name", "hospital-a"), "option-missing"),
        ((*SOURCE[:2], "--source", "table", "--data", "x.csv"), "source-unmapped"),
        (("--name", "no such name", *SOURCE[2:]), "option-invalid"),
        ((*SOURCE[:4], "--data", "gone.csv", *SOURCE[6:]), "source-missing"),
    ],
)
def test_options_that_do_not_do_leave_nothing_behind(
    setting: Setting, shell: Shell, words: tuple[str, ...], code: str
) -> None:
    status, _, err = join(shell, setting, setting.invite("hospital-a"), *words)
    assert (status, code in err) == (6 if code == "source-missing" else 2, True)
    assert not shell.home.root.exists()


def test_other_options_are_taken_until_the_federation_is_accepted(
    others: Setting, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve_when_asked(others, monkeypatch, interrupt=True)
    token = others.invite("hospital-a")
    (Path.cwd() / "y.csv").touch()
    other = (*SOURCE[:4], "--data", "y.csv", *SOURCE[6:])
    wrong = "0" * 48 + token[48:]
    refused = join(shell, others, wrong, "--name", "hospital-z", *SOURCE[2:])[2]
    assert ("token-refused" in refused, "the name is not the invited one" in refused) == (True, True)
    keys = shell.home.identity_key.read_bytes()
    assert "source-missing" in join(shell, others, token, *SOURCE[:4], "--data", "gone.csv", *SOURCE[6:])[2]
    assert load_config(shell.home).site == "hospital-z", "what is not there replaces nothing"
    code, _, err = join(shell, others, token, *SOURCE)
    assert (code, "now names hospital hospital-a" in err) == (130, True)
    assert join(shell, others, token, *other, "--yes")[0] == 0
    assert load_config(shell.home).data.path == str(Path("y.csv").absolute())
    assert shell.home.identity_key.read_bytes() == keys
    for words in (("--name", "hospital-z"), SOURCE):
        code, _, err = join(shell, others, token, *words)
        assert (code, "already-initialised" in err) == (2, True)


@pytest.mark.parametrize("way", ["file", "standard input"])
def test_the_token_need_not_be_on_the_command_line(
    others: Setting, shell: Shell, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    approve_when_asked(others, monkeypatch)
    token, file = others.invite("hospital-a"), others.folder / "token"
    file.write_text(token + "\n")
    words, answer = (("--token-file", str(file)), "y\n") if way == "file" else (("--token", "-"), f"{token}\ny\n")
    code, _, err = shell("join", others.address, *words, *SOURCE, answer=answer)
    assert code == 0, err
    assert token not in err


def test_a_token_is_given_in_one_way(setting: Setting, shell: Shell) -> None:
    empty = setting.folder / "token"
    empty.write_bytes(b"\xff")
    for words, code in (
        ((), "option-invalid"), (("--token", "x", "--token-file", str(empty)), "option-invalid"),
        (("--token-file", str(empty)), "token-malformed"), (("--token-file", str(empty) + "x"), "disk-read"),
        (("--token", "-"), "token-malformed"),
    ):  # fmt: skip
        assert code in shell("join", setting.address, *words, *SOURCE)[2]
    assert not shell.home.root.exists() or not list(shell.home.root.iterdir())


def test_what_is_no_token_or_address_makes_no_keys(setting: Setting, shell: Shell) -> None:
    assert "token-malformed" in join(shell, setting, "abc", *SOURCE)[2]
    assert "option-invalid" in shell("join", "nowhere", "--token", "0" * 48 + "." + "0" * 64, *SOURCE)[2]
    code, _, err = join(shell, setting, "0" * 48 + "." + "0" * 64, *SOURCE)
    assert (code, "ca-differs" in err, "join port" in err) == (5, True, True)


def test_a_federation_file_of_another_ca_is_refused(
    others: Setting, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve_when_asked(others, monkeypatch)
    foreign = membership.init_coordinator(
        type(others.home)(others.folder / "foreign"),
        federation="study",
        host="localhost",
        fleet_port=1,
        now=datetime.now(UTC),
    )
    assert foreign
    pem = (others.folder / "foreign" / "tls" / "ca.pem").read_text()
    read = node.read_federation
    monkeypatch.setattr(node, "read_federation", lambda raw: read(raw).model_copy(update={"ca_pem": pem}))
    code, _, err = join(shell, others, others.invite("hospital-a"), *SOURCE, "--yes")
    assert (code, "ca-differs" in err) == (5, True)
    assert not shell.home.federation.exists()


def test_a_coordinator_that_goes_away_is_waited_for(setting: Setting) -> None:
    answers = iter([OSError, node.Decision("pending", b"", b""), OSError, node.Decision("approved", b"c", b"f")])
    said: list[str] = []

    def look() -> node.Decision:
        answer = next(answers)
        if isinstance(answer, node.Decision):
            return answer
        raise OperatorError("coordinator-unreachable", what="x", do="y")

    assert node.wait_for_approval(look, lambda: None, said.append).federation == b"f"
    assert sum("does not answer" in text for text in said) == 2


# --- members ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def member(others: Setting, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    approve_when_asked(others, monkeypatch)
    assert join(shell, others, others.invite("hospital-a"), *SOURCE, "--yes")[0] == 0
    return shell


def test_accept_without_a_file_fetches_the_newest(member: Shell, others: Setting) -> None:
    assert "nothing has changed" in member("accept")[1]
    others.knock("hospital-d")
    code, _, err = member("accept", answer="y\n")
    assert (code, "hospital-d" in err, "hospital-b" in err) == (0, True, False)
    assert member.json("status")["serial"] == 2


def test_accept_without_a_file_or_a_certificate_says_how(setting: Setting, shell: Shell) -> None:
    shell("init", *SOURCE)
    code, _, err = shell("accept")
    assert (code, "certificate-none" in err, "federation.json" in err) == (5, True, True)


def test_pause_and_resume(member: Shell) -> None:
    assert member.json("pause")["paused"] is True
    assert member.json("status")["paused"] is True
    with pytest.raises(OperatorError, match="node-paused"):
        require_awake(member.home)
    found = {check["name"]: check["code"] for check in json.loads(member("doctor", "--json")[1])["checks"]}
    assert found["runs"] == "node-paused"
    assert member.json("resume")["paused"] is False
    assert member.json("resume")["paused"] is False, "twice is fine"
    require_awake(member.home)


def test_leave_keeps_what_was_spent_and_says_why(member: Shell) -> None:
    open_ledger(member.home).shut()
    kept = {
        name: (member.home.root / name).read_bytes() for name in ("ledger.sqlite", "node.toml", "pseudonym/hmac.key")
    }
    member.home.tags.write_bytes(b"tags")
    assert member("leave", answer="n\n")[0] == 2
    assert member.home.identity_key.exists()
    code, out, _ = member("leave", answer="y\n")
    assert code == 0
    for name, content in kept.items():
        assert (member.home.root / name).read_bytes() == content
        assert f"kept     {name}: " in out
    gone = (
        "keys/identity.key",
        "keys/node.key",
        "keys/operator.key",
        "tls/operator.pem",
        "federation.json",
        "compose.yaml",
    )
    for name in gone:
        assert f"removed  {name}" in out
        assert not (member.home.root / name).exists()
    assert load_policy(member.home.policy).policy.peers == {}
    assert member.home.tags.exists()
    status = member.json("status")
    assert (status["accepted"], status["fingerprint"]) == (False, None)
    code, out, _ = member("doctor")
    assert (code, "keys-none" in out) == (2, True)
    assert member.json("ledger")["caps"]["left_year"] == 3.0, "the ledger can still be read"
    code, out, _ = member("leave", "--purge", "--yes")
    assert (code, "site revoke hospital-a" in out) == (0, True)
    assert not member.home.tags.exists()


def test_leave_frees_what_a_run_had_reserved_and_keeps_what_it_spent(member: Shell) -> None:
    """A hospital that is taken out of a run is not told of its end."""
    caps = Caps(dataset=8, year=3)
    releases = (("risk", Release(sigma=8.0, q=1.0, count=10)),)
    with open_ledger(member.home) as ledger:
        ledger.reserve("run-1", "ab" * 32, releases, caps)
        ledger.commit("run-1", 0, "train", (("risk", Release(sigma=8.0, q=1.0, count=1)),), epoch=1)
        spent, held = ledger.spent(), ledger.held()
    assert 0 < spent < held
    code, out, _ = member("leave", "--yes")
    assert (code, "freed    what run run-1 had reserved" in out) == (0, True)
    with open_ledger(member.home) as ledger:
        assert (ledger.spent(), ledger.held(), ledger.open_runs()) == (spent, spent, ())
    assert "freed" not in member("leave", "--yes")[1], "twice is fine"


def test_leave_is_refused_while_the_node_runs(member: Shell) -> None:
    with alone(member.home):
        code, _, err = member("leave", "--yes")
    assert (code, "node-running" in err) == (2, True)
    assert member.home.identity_key.exists()


def test_only_one_process_runs_a_node(member: Shell) -> None:
    with alone(member.home):
        code, _, err = member("start")
    assert (code, "node-running" in err) == (2, True)


def test_who_was_revoked_comes_back_with_new_keys_only(
    member: Shell, others: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_keys = member.home.identity_key.read_bytes()
    coordinator.revoke(others.home, "hospital-a", datetime.now(UTC))
    token = others.invite("hospital-a")
    approve_when_asked(others, monkeypatch)
    code, _, err = join(member, others, token)
    assert (code, "key-removed" in err, "cameo-node leave" in err) == (5, True, True)
    assert member("leave", "--yes")[0] == 0
    code, _, err = join(member, others, token, answer="y\n")
    assert code == 0, err
    assert member.home.identity_key.read_bytes() != old_keys
    assert member.json("status")["index"] == 4
    assert "hospital-b" in err, "after leaving, every peer is compared anew"


def test_an_old_federation_file_is_not_given_to_new_keys(
    others: Setting, member: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a re-invited hospital's approval and the next issue, the last file still names its old key."""
    coordinator.revoke(others.home, "hospital-a", datetime.now(UTC))
    others.invite("hospital-e")  # somebody else is awaited, so approval issues nothing
    anew = others.node("hospital-a")
    token = node.Token.parse(others.invite("hospital-a"))
    ca = node.pinned_ca(("localhost", others.port), token)
    coordinator.approve(others.home, "hospital-a", node.knock(anew, others.address, token, ca), datetime.now(UTC))
    found = node.ask(anew, others.address, ca, "hospital-a", datetime.now(UTC))
    assert (found.state, found.federation, bool(found.certificate)) == ("approved", b"", True)


def test_by_hand_a_removed_key_is_refused_too(others: Setting) -> None:
    card = (others.folder / "hospital-b" / "public.json").read_bytes()
    membership.remove_site(others.home, "hospital-b", datetime.now(UTC))
    with pytest.raises(OperatorError) as refused:
        membership.add_site(others.home, card, datetime.now(UTC))
    assert refused.value.code == "key-removed"


# --- upkeep -----------------------------------------------------------------------------------------------------------


def upkeep(member: Shell, later: timedelta = timedelta()) -> tuple[Upkeep, list[str]]:
    said: list[str] = []
    return Upkeep(member.home, said.append, lambda: datetime.now(UTC) + later, lambda: 0.0), said


def test_a_running_node_renews_and_says_what_is_new_but_accepts_nothing(member: Shell, others: Setting) -> None:
    keeper, said = upkeep(member)
    keeper.look()
    assert said == []
    others.knock("hospital-d")
    policy, accepted = member.home.policy.read_bytes(), member.home.federation.read_bytes()
    certificate = member.home.operator_cert.read_bytes()
    keeper, said = upkeep(member, timedelta(days=65))
    keeper.look()
    keeper.look()
    assert said[0] == "this hospital's certificate has been renewed"
    assert [text for text in said if "hospital-d is new" in text and "cameo-node accept" in text] == said[1:2]
    assert member.home.operator_cert.read_bytes() != certificate
    assert (member.home.policy.read_bytes(), member.home.federation.read_bytes()) == (policy, accepted)
    status = member.json("status")
    assert (status["serial"], status["newest_serial"], status["upkeep_error"]) == (1, 2, "")


def test_a_revoked_node_is_told_so_and_ends(member: Shell, others: Setting) -> None:
    import threading

    keeper, said = upkeep(member)
    stop = threading.Event()
    thread = threading.Thread(target=keeper.loop, args=(stop,), daemon=True)
    thread.start()
    for state in ("connecting", "online"):
        keeper.heard(state)
    coordinator.revoke(others.home, "hospital-a", datetime.now(UTC))
    for _ in range(50):  # the agent tries again for ever, and says so each time
        keeper.heard("refused")
        keeper.heard("connecting")
    thread.join(20)
    assert stop.is_set()
    assert keeper.ended is not None
    assert keeper.ended.code == "certificate-refused"
    assert sum("refused: the coordinator does not let this node in" in text for text in said) == 1
    assert said[:2] == ["connecting", "online"]
    assert member.json("status")["upkeep_error"] == "certificate-refused"
    left = member("leave", "--yes")[1]
    assert ("site revoke" in left, "To come back" in left) == (False, True), "it is revoked already"


def test_a_node_without_a_coordinator_goes_on(member: Shell, others: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, said = upkeep(member)

    def away(_home: object) -> bytes:
        raise OperatorError("coordinator-unreachable", what="nobody", do="wait")

    monkeypatch.setattr("cameo_client.node.upkeep.newest_federation", away)
    keeper.look()
    keeper.look()
    assert [text.partition(":")[0] for text in said] == ["coordinator-unreachable"]
    assert keeper.ended is None


def test_a_certificate_that_ended_while_the_node_was_away_is_made_anew(others: Setting, member: Shell) -> None:
    """Mutual TLS is over then; the identity key still proves who asks, and the key of the certificate is the same."""
    later = datetime.now(UTC) + timedelta(days=120)
    state, pem, _ = _collected(others, member, later)
    assert state == "approved"
    before = member.home.operator_cert.read_bytes()
    node.keep_certificate(member.home, pem)
    assert member.home.operator_cert.read_bytes() != before
    assert node.certificate_days(member.home, later) == 89


def test_the_join_command_fetches_a_new_certificate_when_the_old_one_is_nearly_over(
    others: Setting, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve_when_asked(others, monkeypatch)
    token = others.invite("hospital-a")
    assert join(shell, others, token, *SOURCE, "--yes")[0] == 0
    then = datetime.now(UTC) - timedelta(days=85)
    public = x509.load_pem_x509_certificate(shell.home.operator_cert.read_bytes()).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    with membership.open_roster(others.home) as db:  # as if all this had happened 85 days ago
        old = coordinator._issue(db, others.home, public, ("hospital-a", "site"), then)
    shell.home.operator_cert.write_bytes(old)
    found = {check["name"]: check["code"] for check in json.loads(shell("doctor", "--json")[1])["checks"]}
    assert found["certificate"] == "certificate-ends"
    assert join(shell, others, token, "--yes")[0] == 0
    assert shell.json("status")["certificate_days"] == 89


def _collected(setting: Setting, member: Shell, now: datetime) -> tuple[str, bytes, bytes]:
    from cameo_client.home import load_identity
    from cameo_protocol.operator_api.refusal import collect_text

    at = int(now.timestamp())
    proof = load_identity(member.home).sign(collect_text("hospital-a", at))
    return coordinator.collect(setting.home, "hospital-a", at, proof, now)
