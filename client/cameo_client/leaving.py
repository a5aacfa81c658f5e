"""Leaving a federation: what goes, what stays, and why."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cameo_client.home import PUBLIC, NodeHome, read_file, write_file
from cameo_client.policy_file import approve, load_policy
from cameo_client.running import PAUSED
from cameo_client.service_files import COMPOSE, UNIT
from cameo_protocol.errors import OperatorError

KEPT: Final = {
    "ledger.sqlite": "what has been spent stays spent, in whatever federation the patients are next",
    "consent.sqlite": "patients' decisions and the uses they may ask about",
    "keys/kek.key": "it opens what is sealed here, such as tags and backups",
    "pseudonym/hmac.key": "without it nobody's consents or tags can be found again",
    "policy.yaml": "the officer's limits; the approved hospitals are taken out of it",
    "node.toml": "the data source; the ledger and the consents are opened by it",
    "audit.sqlite": "who did what; it goes on, also in between",
    "keys/audit.key": "it signs the audit log",
    "journal": "which rounds were answered, so that none is answered twice",
}


@dataclass(frozen=True)
class Departure:
    """removed: names of what was there, relative to the home. runs: whose reservations were freed."""

    removed: tuple[str, ...]
    runs: tuple[str, ...]


def leave_federation(home: NodeHome, *, purge: bool) -> Departure:
    """Remove what belongs to the membership, and free what open runs had reserved and not spent.

    purge: tags and models too. The caller holds the node's lock. It may be interrupted and called again.
    """
    runs = _close_runs(home)
    if home.policy.exists():
        policy = load_policy(home.policy)
        text = read_file(home.policy).decode()
        write_file(home.policy, approve(text, policy.policy.coordinator, {}).encode(), PUBLIC)
    gone = [home.identity_key, home.node_key, home.operator_key, home.operator_cert, home.card, home.federation]
    gone += [home.root / name for name in (UNIT, COMPOSE, PAUSED, "state.json", "upkeep.json")]
    gone += [home.peers, home.page_key, home.receipt, home.scratch]
    if purge:
        gone += [*(home.tags.with_name(home.tags.name + end) for end in ("", "-wal", "-shm")), home.models]
    return Departure(tuple(str(path.relative_to(home.root)) for path in gone if remove(path)), runs)


def _close_runs(home: NodeHome) -> tuple[str, ...]:
    """End every open run in the ledger: the keys that it was bound to are about to go, so it can ask for nothing more.

    The coordinator tells members when a run ends; a hospital that was taken out of one is told nothing.
    """
    if not home.ledger.exists():
        return ()
    from cameo_client.node.service import open_ledger

    with open_ledger(home) as ledger:
        runs = ledger.open_runs()
        for run in runs:
            ledger.close(run)
    return runs


def remove(path: Path) -> bool:
    """Remove a file or a folder; False when it was not there."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OperatorError(
            "disk-write", what=f"cannot remove {path}: {error.strerror}", do="make it writable, then run it again"
        ) from None
    return True
