"""What the page shows, as plain values read from this hospital's own files. Nothing here knows HTTP or HTML.

What is costly is kept for some seconds: a page that refreshes itself must not take time from the node.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cameo_client.audit import open_audit
from cameo_client.consent.records import SCOPES
from cameo_client.consent.store import ConsentStore
from cameo_client.data.catalogue import load_labels
from cameo_client.home import NodeHome, load_config
from cameo_client.ledger import Caps, Ledger
from cameo_client.membership import load_federation
from cameo_client.node.publication import SIGNED, load_published, plain_name
from cameo_client.page.clinical import names_of, rules_in_words
from cameo_client.page.segments import Segment, segments
from cameo_client.page.words import count_text
from cameo_client.policy_file import load_policy
from cameo_client.running import is_paused, is_running
from cameo_client.source import catalogue_of, source_of
from cameo_client.tags.pack import load_pack
from cameo_client.tags.store import TagStore
from cameo_protocol.errors import CameoError, OperatorError
from cameo_protocol.stages import Publication

KEPT_S: Final = 15.0
CURVE_POINTS: Final = 40
_DO: Final = "start the node, take part in a run, then look again"
T = TypeVar("T")


@dataclass(frozen=True)
class TagRow:
    """One tag of the last evaluation, in counts that may be shown."""

    tag: str
    purpose: str
    stored: str
    waiting: str
    blocked: str


@dataclass(frozen=True)
class TagTable:
    """The last evaluation. at: UTC text; snapshot: of the facts, "" when not known.

    models: (column of scores, run whose model filled it). left_out: (column, run, why its model does not serve).
    """

    at: str
    snapshot: str
    rows: tuple[TagRow, ...]
    models: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class RunRow:
    """A run that this hospital has reserved budget for or has models of. spent: ε of its own releases, alone."""

    run: str
    at: str
    state: str
    rounds: int
    spent: float
    published: bool


@dataclass(frozen=True)
class Chain:
    """The head of one of this hospital's hash chains: what to compare with the copy that somebody else has kept.

    problem: why there is no head, "" when all is well.
    """

    name: str
    about: str
    entries: int = 0
    head: str = ""
    problem: str = ""


@dataclass
class Views:
    """Reads a home. clock: unix seconds. One look at a time, so that the page never takes more than one core."""

    home: NodeHome
    clock: Callable[[], float]
    _kept: dict[str, tuple[float, Any]] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def now(self) -> datetime:
        """The time, aware."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """A value at most KEPT_S old."""
        with self._lock:
            at, value = self._kept.get(name, (float("-inf"), None))
            if not 0 <= self.clock() - at <= KEPT_S:
                value = make()
                self._kept[name] = (self.clock(), value)
            return value  # type: ignore[no-any-return]

    def node(self) -> dict[str, Any]:
        """Who this node is, and what its process said of itself last."""
        config = load_config(self.home)
        try:
            state = json.loads((self.home.root / "state.json").read_bytes())
            agent, tags = str(state["agent"]), dict(state["tags"])
        except (OSError, ValueError, KeyError, TypeError):
            agent, tags = "never started", {}
        joined = self.home.federation.exists()
        federation = load_federation(self.home) if joined else None
        return {
            "site": config.site,
            "agent": agent if is_running(self.home) else "stopped",
            "paused": is_paused(self.home),
            "federation": federation.name if federation else "",
            "hospitals": [site.name for site in federation.cohort.sites] if federation else [],
            "tags_run": str(tags.get("run", "")),
            "tags_error": str(tags.get("error", "")),
        }

    def budget(self) -> dict[str, Any] | None:
        """The ledger's report, its curve with few points; None before the node was started."""
        return self.kept("budget", self._budget)

    def _budget(self) -> dict[str, Any] | None:
        from cameo_client.node.service import LEDGER_DELTA

        if not self.home.ledger.exists():
            return None
        caps = load_policy(self.home.policy).policy.caps
        limits = Caps(dataset=caps.epsilon_per_data_set, year=caps.epsilon_per_year)
        dataset = load_config(self.home).data.name
        with Ledger.open(self.home.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=self.clock) as ledger:
            return ledger.report(limits, points=CURVE_POINTS)

    def budget_chart(self) -> dict[str, Any]:
        """ε spent after each release, for the chart; live while a run is open."""
        found = self.budget() or {"curve": [], "runs": []}
        points = found["curve"]
        chart = {
            "x": "release",
            "y": "ε spent for ever",
            "digits": 2,
            "log": False,
            "at": [0, *(point["release"] for point in points)],
            "series": ["ε spent"],
            "values": [[0.0, *(point["epsilon"] for point in points)]],
        }
        return {"live": any(run["state"] == "open" for run in found["runs"]), "charts": {"budget": chart}}

    def tags(self) -> TagTable | None:
        """Tags by state as the last evaluation left them; None before the first."""
        return self.kept("tags", self._tags)

    def _tags(self) -> TagTable | None:
        if not self.home.tags.exists():
            return None
        with TagStore(self.home.tags) as store:
            last = store.last_run()
        return None if last is None else tag_table(last)

    def conditions(self) -> dict[str, str]:
        """Tag -> when it is given, in words, by the packs in force."""
        return self.kept("conditions", self._conditions)

    def _conditions(self) -> dict[str, str]:
        from cameo_client.tagging import pack_paths

        if not self.home.tags.exists():
            return {}
        try:
            known = [load_pack(path).pack.id for path in pack_paths(self.home, catalogue_of(self.home).id)]
        except OperatorError:  # a pack file that somebody is editing: `tags lint` says what is wrong with it
            return {}
        with TagStore(self.home.tags) as store:
            packs = [pack for pack in map(store.pack_in_force, known) if pack is not None]
        return rules_in_words(packs, self.names())

    def names(self) -> dict[str, tuple[str, str]]:
        """Column -> (what it is, its unit); nothing where no catalogue is named yet, which is doctor's to say."""
        return self.kept("names", self._names)

    def _names(self) -> dict[str, tuple[str, str]]:
        try:
            catalogue = catalogue_of(self.home)
            return names_of(catalogue, load_labels(catalogue))
        except OperatorError:
            return {}

    def labels(self) -> dict[str, str]:
        """Label -> what it predicts."""
        try:
            return {label.id: label.meaning for label in load_labels(catalogue_of(self.home))}
        except OperatorError:
            return {}

    def consents(self) -> dict[str, Any]:
        """By scope: how many patients granted, let it expire, denied or withdrew, as text; whether any is made up."""
        return self.kept("consents", self._consents)

    def _consents(self) -> dict[str, Any]:
        if not self.home.consent.exists():
            return {"scopes": {}, "fictional": False}
        with ConsentStore.open(self.home.consent) as store:
            counts = {scope: store.counts(scope, self.now()) for scope in SCOPES}
            shown = {scope: {name: count_text(n) for name, n in row.items()} for scope, row in counts.items()}
            return {"scopes": shown, "fictional": store.fictional()}

    def synthetic(self) -> bool:
        """Whether the mapping or the catalogue says that no real patient is behind the source, which is not opened."""
        found = source_of(self.home)
        return found.source.mapping.synthetic or found.catalogue.synthetic

    def chains(self) -> list[Chain]:
        """The heads of the ledger, the audit log and the tag log, of those that there are."""
        return self.kept("chains", self._chains)

    def _chains(self) -> list[Chain]:
        known = (
            ("privacy ledger", "what was released, at what cost", self.home.ledger, self._ledger_head),
            ("audit log", "who did what at this node", self.home.audit, self._audit_head),
            ("tag log", "packs, evaluations, reviews, exports", self.home.tags, self._tag_head),
        )
        return [_chain(name, about, head) for name, about, path, head in known if path.exists()]

    def _ledger_head(self) -> tuple[int, str]:
        head = (self.budget() or {})["head"]
        return int(head["entries"]), str(head["hash"])

    def _audit_head(self) -> tuple[int, str]:
        with open_audit(self.home) as log:
            head = log.head()
        return head.entries, head.last.hex()

    def _tag_head(self) -> tuple[int, str]:
        with TagStore(self.home.tags) as store:
            return store.verify()

    def runs(self) -> list[RunRow]:
        """Newest first."""
        known = {run["run"]: run for run in (self.budget() or {"runs": []})["runs"]}
        stored = {path.parent.name: path.stat().st_mtime for path in self.home.models.glob(f"*/{SIGNED}")}
        rows = [
            RunRow(name, run["at"], run["state"], run["rounds"], run["spent"], name in stored)
            for name, run in known.items()
        ]
        rows += [
            RunRow(name, datetime.fromtimestamp(at, UTC).isoformat(), "closed", 0, 0.0, True)
            for name, at in stored.items()
            if name not in known
        ]
        return sorted(rows, key=lambda row: row.at, reverse=True)

    def card(self, run: str) -> dict[str, Any]:
        """The model card of a published run, its signature checked again; unknown: `OperatorError` "model-missing"."""
        path = self.home.models / run / SIGNED
        if not plain_name(run) or not path.is_file():
            raise OperatorError("model-missing", what="no models of that run are stored here", do=_DO)
        coordinator = bytes.fromhex(load_federation(self.home).coordinator)
        card: dict[str, Any] = json.loads(Publication.open(path.read_bytes(), coordinator).card)
        return card

    def segments(self, run: str) -> tuple[Segment, ...]:
        """The segments of a published run; () where its catalogue is not the installed one, which alone can tell."""
        coordinator = bytes.fromhex(load_federation(self.home).coordinator)
        try:
            return segments(load_published(self.home.models, run, coordinator))
        except OperatorError as error:
            if error.code != "model-catalogue":
                raise
            return ()


def _chain(name: str, about: str, head: Callable[[], tuple[int, str]]) -> Chain:
    """A chain that cannot be read says why, and does not keep the others from being shown."""
    try:
        entries, digest = head()
    except CameoError as error:
        return Chain(name, about, problem=f"{error.what}. {error.do}")
    return Chain(name, about, entries, digest)


def tag_table(last: Mapping[str, Any]) -> TagTable:
    """What may be shown of the summary of an evaluation."""
    rows = (
        TagRow(
            tag=one["tag"],
            purpose=one["purpose"],
            stored=count_text(one["stored"]),
            waiting=count_text(sum(one["waiting"].values())),
            blocked=count_text(sum(one["blocked"].values())),
        )
        for one in last["counts"]
    )
    return TagTable(
        at=last["at"],
        snapshot=last["snapshot"] or "",
        rows=tuple(rows),
        models=tuple((one["name"], one["run"]) for one in last.get("models", ())),
        left_out=tuple((one["name"], one["run"], one["what"]) for one in last.get("models_left_out", ())),
    )
