"""Leaving a federation: what goes, what stays, and why."""

from __future__ import annotations

import shutil
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


def leave_federation(home: NodeHome, *, purge: bool) -> list[str]:
    """Remove what belongs to the membership; returns the names of what was there, relative to the home.

    purge: tags and models too. The caller holds the node's lock. It may be interrupted and called again.
    """
    if home.policy.exists():
        policy = load_policy(home.policy)
        text = read_file(home.policy).decode()
        write_file(home.policy, approve(text, policy.policy.coordinator, {}).encode(), PUBLIC)
    gone = [home.identity_key, home.node_key, home.operator_key, home.operator_cert, home.card, home.federation]
    gone += [home.root / name for name in (UNIT, COMPOSE, PAUSED, "state.json", "upkeep.json")]
    gone += [home.peers, home.page_key, home.receipt]
    if purge:
        gone += [*(home.tags.with_name(home.tags.name + end) for end in ("", "-wal", "-shm")), home.models]
    return [str(path.relative_to(home.root)) for path in gone if remove(path)]


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
