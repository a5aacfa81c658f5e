"""What a run keeps on disk so that it can go on after its coordinator died: who takes part, epochs, rounds.

A round that has ended is never asked for again: going on means replaying the outcomes of those that ended, finishing
the one that had begun, and then the next. Everything here is what the coordinator has seen anyway.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cameo_protocol import canonical
from cameo_protocol.epochs import epoch_params
from cameo_protocol.errors import CameoError, OperatorError, Reject
from cameo_protocol.plan import RunPlan
from cameo_protocol.secagg.messages import pack, unpack
from cameo_protocol.secagg.server_setup import Epoch, restore
from cameo_protocol.stages import MAX_SETUP_ITEM, EpochCall, RoundCall
from cameo_server.run.record import RoundLog
from cameo_server.run.round import Opened, VoidRound
from cameo_server.run.store import RunStore

TAKING_PART = "taking-part.json"


@dataclass(frozen=True)
class Ended:
    """A round that has ended. active: who was expected to answer the next one."""

    call: RoundCall
    outcome: Opened | VoidRound
    active: frozenset[int]


@dataclass(frozen=True)
class SetupMessages:
    """The messages from which a server epoch can be built again."""

    adverts: dict[int, bytes]
    envelopes: dict[int, bytes]
    readies: dict[int, bytes]


class Kept:
    """The run's memory in its folder. Whatever is unreadable is an `OperatorError` "run-unreadable"."""

    def __init__(self, store: RunStore, plan: RunPlan) -> None:
        self._store = store
        self._plan = plan

    # --- admission ----------------------------------------------------------------------------------------------

    def keep_taking_part(self, active: set[int], declined: set[int]) -> None:
        """Admission is over."""
        value = {"active": sorted(active), "declined": sorted(declined)}
        self._store.save_bytes(TAKING_PART, json.dumps(value).encode())

    def taking_part(self) -> tuple[set[int], set[int]] | None:
        """Who accepted and who declined; None before the end of admission."""
        value = self._json(TAKING_PART)
        return None if value is None else (set(value["active"]), set(value["declined"]))

    # --- epochs -------------------------------------------------------------------------------------------------

    def keep_epoch_call(self, call: EpochCall) -> None:
        """A set-up is about to be asked for: its number is never used again."""
        self._store.save_bytes(f"epoch-{call.epoch:04d}.call", call.encode())

    def keep_epoch(self, call: EpochCall, messages: SetupMessages) -> None:
        """An epoch is set up."""
        parts = [pack(part) for part in (messages.adverts, messages.envelopes, messages.readies)]
        self._store.save_bytes(f"epoch-{call.epoch:04d}.setup", canonical.encode(parts))

    def newest_epoch(self) -> tuple[EpochCall, Epoch | None] | None:
        """The set-up that was asked for last, and the epoch if it succeeded; None when there was none."""
        paths = sorted(self._store.folder.glob("epoch-*.call"))
        if not paths:
            return None
        try:
            call = EpochCall.decode(paths[-1].read_bytes())
            path = paths[-1].with_suffix(".setup")
            if not path.exists():
                return call, None
            parts = canonical.decode(path.read_bytes(), max_bytes=1 << 32)
            messages = [unpack(part, max_item_bytes=MAX_SETUP_ITEM) for part in parts]
            return call, restore(epoch_params(self._plan, call), *messages)
        except (Reject, TypeError, OSError) as error:
            raise self._unreadable(paths[-1].stem, error) from None

    # --- rounds -------------------------------------------------------------------------------------------------

    def log(self, number: int) -> RoundLog:
        """The messages of a round that has not ended. number: of the round in the run, from 1."""
        return RoundLog(self._store.folder / f"round-{number:04d}.log")

    def keep_outcome(self, number: int, ended: Ended) -> None:
        """A round has ended: its sum and outcome are on disk before its messages are deleted."""
        outcome = ended.outcome
        value: dict[str, Any] = {
            "call": replace(ended.call, heads={}, receipts={}).encode().hex(),
            "active": sorted(ended.active),
        }
        if isinstance(outcome, Opened):
            self._store.save_arrays(_opening(number), {"total": outcome.total})
            value["survivors"] = sorted(outcome.survivors)
        else:
            value["void"] = outcome.reason
        self._store.save_bytes(_outcome(number), json.dumps(value | {"seconds": outcome.seconds}).encode())
        self.log(number).delete()

    def outcome(self, number: int) -> Ended | None:
        """How a round ended; None when it has not."""
        value = self._json(_outcome(number))
        if value is None:
            return None
        try:
            outcome: Opened | VoidRound
            if "void" in value:
                outcome = VoidRound(reason=str(value["void"]), seconds=value["seconds"])
            else:
                total = np.asarray(self._store.load_arrays(_opening(number))["total"], dtype=np.uint32)
                survivors = frozenset(value["survivors"])
                outcome = Opened(total=total, survivors=survivors, seconds=value["seconds"])
            return Ended(RoundCall.decode(bytes.fromhex(value["call"])), outcome, frozenset(value["active"]))
        except (CameoError, KeyError, TypeError, ValueError, OSError) as error:
            raise self._unreadable(_outcome(number), error) from None

    def _json(self, name: str) -> Any:
        path = self._store.folder / name
        if not path.exists():
            return None
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise self._unreadable(name, error) from None

    def _unreadable(self, name: str, error: Exception) -> OperatorError:
        return OperatorError(
            "run-unreadable",
            what=f"{name} of run {self._store.folder.name} cannot be read ({type(error).__name__})",
            do="restore the run's folder from a backup, or start a new run: cameo run",
        )


def _opening(number: int) -> str:
    return f"opening-{number:04d}.npz"


def _outcome(number: int) -> str:
    return f"round-{number:04d}.json"
