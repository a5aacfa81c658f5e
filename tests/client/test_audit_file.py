"""The hospital's audit log on disk."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import random
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest

from audit_kit import IDENTITY, bare_home
from cameo_client.audit import account, memory_audit, note, note_file, open_audit
from cameo_client.home import NodeHome
from cameo_protocol.errors import Bug, CameoError, OperatorError


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return bare_home(tmp_path / "home")


def told(home: NodeHome) -> list[tuple[str, str, str]]:
    with open_audit(home) as log:
        return [(entry.kind, entry.who, entry.about) for entry, _ in log.entries()]


def test_what_is_noted_is_there_after_reopening(home: NodeHome) -> None:
    note(home, "tag-reviewed", who="A. Nurse", about="lung-screening", verdict="approved")
    note(home, "consent-imported", who="B. Clerk", about="consents.csv")
    assert [kind for kind, *_ in told(home)] == ["log-opened", "tag-reviewed", "consent-imported"]
    assert stat.S_IMODE(home.audit.stat().st_mode) == 0o600
    with open_audit(home) as log:
        head = log.verify()
        assert head.entries == 3
        assert log.holds(head.last)
        assert not log.holds(bytes(32))


def test_the_same_twice_differs_in_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash that is told lets nobody try out what may be in the log: same key, same time, same entries."""
    monkeypatch.setattr(time, "time", lambda: 1.0)
    one, two = memory_audit(IDENTITY), memory_audit(IDENTITY)
    for log in (one, two):
        log.note("admission", who="node", about="r1")
    assert one.head().last != two.head().last


def test_only_what_a_hospital_does_is_noted(home: NodeHome) -> None:
    with open_audit(home) as log, pytest.raises(Bug, match="audit-kind"):
        log.note("site-approved", who="x")
    with open_audit(home) as log, pytest.raises(OperatorError, match="audit-text"):
        log.note("admission", who="x" * 300)


def test_a_clock_set_back_breaks_nothing(home: NodeHome) -> None:
    with open_audit(home) as log:
        for now in (2000.0, 1000.0, 3000.0):
            log.clock = lambda now=now: now  # type: ignore[misc]
            log.note("admission", who="node")
        assert [entry.at for entry, _ in log.entries()][-1] >= 2_000_000
        log.verify()


def test_a_changed_file_is_noted_once(home: NodeHome) -> None:
    policy = home.root / "policy.yaml"
    policy.write_text("caps: 3")
    with open_audit(home) as log:
        note_file(log, home.root / "roles.yaml")  # never was there: nothing to say
        for _ in range(3):
            note_file(log, policy)
        policy.write_text("caps: 8")
        note_file(log, policy)
        policy.unlink()
        note_file(log, policy)
        kinds = [entry for entry, _ in log.entries() if entry.kind == "file-changed"]
    assert [entry.facts["sha256"][:6] for entry in kinds][-1] == ""
    assert len(kinds) == 3


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        ("UPDATE entry SET body = zeroblob(length(body)) WHERE seq = 3", 3),
        ("DELETE FROM entry WHERE seq = 2", 2),
        ("DELETE FROM entry WHERE seq > 4", 5),
        ("UPDATE entry SET seq = -seq WHERE seq IN (3, 4); UPDATE entry SET seq = 7 + seq WHERE seq < 0", 3),
    ],
)
def test_the_first_bad_entry_is_named(home: NodeHome, damage: str, first: int) -> None:
    for number in range(5):
        note(home, "tag-reviewed", who="A. Nurse", about=f"tag-{number}")
    db = sqlite3.connect(home.audit)
    triggers = [row[0] for row in db.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")]
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        db.executescript(damage)
    db.executescript(f"DROP TRIGGER entry_stays; DROP TRIGGER entry_kept; {damage}; {';'.join(triggers)}")
    db.close()
    with open_audit(home) as log, pytest.raises(OperatorError, match=f"audit-log-broken: .*entry {first}:"):
        log.verify()


def test_nothing_is_added_to_a_log_whose_end_was_cut(home: NodeHome) -> None:
    for number in range(3):
        note(home, "tag-reviewed", who="A. Nurse", about=f"tag-{number}")
    db = sqlite3.connect(home.audit)
    db.executescript("DROP TRIGGER entry_kept; DELETE FROM entry WHERE seq = 4")
    db.execute("CREATE TRIGGER entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append only'); END")
    db.close()
    with pytest.raises(OperatorError, match="audit-log-broken"):
        note(home, "tag-reviewed", who="A. Nurse", about="after")


def read_all(home: NodeHome) -> object:
    """Every entry, or the code of the refusal."""
    try:
        with open_audit(home) as log:
            log.verify()
            return list(log.entries())
    except CameoError as error:
        return error.code


def test_flipped_bytes_of_the_file_are_seen_or_change_nothing(home: NodeHome) -> None:
    for number in range(4):
        note(home, "tag-reviewed", who="A. Nurse", about=f"tag-{number}")
    with open_audit(home) as log:
        before = [(entry, head) for entry, head in log.entries()]
        log.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sound = home.audit.read_bytes()
    seen = 0
    for position in random.Random(1).sample(range(len(sound)), 250):
        changed = bytearray(sound)
        changed[position] ^= 0x41
        home.audit.write_bytes(changed)
        found = read_all(home)
        assert found in (before, "audit-log-broken", "audit-log-unwritable"), position
        seen += isinstance(found, str)
    assert seen > 5


@pytest.mark.parametrize("raw", [b"not a database", b"SQLite format 3\0" + bytes(500), b"x" * 5000])
def test_another_file_is_refused(home: NodeHome, raw: bytes) -> None:
    note(home, "tags-applied", who="node")
    home.audit.write_bytes(raw)
    with pytest.raises(OperatorError, match="audit-log-broken"):
        open_audit(home)


def test_threads_take_turns(home: NodeHome) -> None:
    with open_audit(home) as log:
        threads = [
            threading.Thread(target=lambda: [log.note("admission", who="node") for _ in range(10)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.verify().told == 40


def write_some(root: Path) -> None:
    for _ in range(5):
        note(NodeHome(root), "tags-applied", who="node")


def test_processes_take_turns(home: NodeHome) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_some, args=(home.root,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with open_audit(home) as log:
        assert log.verify().entries == 16


def test_the_log_goes_on_without_the_identity_key(home: NodeHome) -> None:
    """A hospital that has left still writes down what patients decide."""
    note(home, "tags-applied", who="node")
    home.identity_key.unlink()
    note(home, "consent-withdrawn", who="B. Clerk", about="care")
    assert [kind for kind, *_ in told(home)] == ["log-opened", "tags-applied", "consent-withdrawn"]
    with open_audit(home) as log:
        owner = next(log.entries())[0].facts["owner"]
        assert owner == log.key.public_key().public_bytes_raw().hex()
    assert stat.S_IMODE(home.audit_key.stat().st_mode) == 0o600


def test_a_key_that_is_gone_is_not_made_anew(home: NodeHome) -> None:
    note(home, "tags-applied", who="node")
    home.audit_key.unlink()
    with pytest.raises(OperatorError, match="disk-read"):
        open_audit(home)


def begin(root: Path) -> None:
    note(NodeHome(root), "tags-applied", who="node")


def test_processes_that_begin_a_log_at_once_share_its_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=begin, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with open_audit(NodeHome(tmp_path)) as log:
        assert log.verify().entries == 5


def test_who_runs_a_command_is_the_account_whatever_its_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "dr-lee")
    assert account() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 987_654_321)
    assert account() == "account 987654321"
