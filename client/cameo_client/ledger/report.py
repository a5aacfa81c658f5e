"""What `cameo-node ledger` shows: one JSON-able object, and the same as text. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cameo_client.ledger.book import WINDOW_DAYS, Book, Line, Run, lines_of
from cameo_client.ledger.entries import PURPOSES, Caps

SCHEMA_VERSION = 1
CURVE_POINTS = 500  # in the JSON; the text shows fewer
_CURVE_ROWS, _BAR = 30, 30


class Point(NamedTuple):
    """Epsilon of everything committed up to a release, this one included.

    release: its number from 1. entry: its number in the chain. at: seconds since 1970. purpose: see `PURPOSES`.
    """

    release: int
    entry: int
    at: int
    run: str
    purpose: str
    epsilon: float


def by_task(book: Book) -> dict[str, float]:
    """Task -> epsilon of its committed releases alone, in order of first use."""
    return {task: book.epsilon(lines) for task, lines in _by_task(book.spent).items()}


def curve(book: Book, points: int) -> tuple[Point, ...]:
    """Epsilon after at most `points` (>= 1) of the commits, evenly spread; the last commit is always one."""
    commits = list(book.rounds.values())
    step = max(1, -(-len(commits) // max(points, 1)))
    total: Counter[Line] = Counter()
    found: list[Point] = []
    for number, (entry, head) in enumerate(commits, start=1):
        total.update(lines_of(entry.releases))
        if number % step == 0 or number == len(commits):
            purpose = PURPOSES[entry.kind]
            found.append(Point(number, head.entries, entry.at, entry.run, purpose, book.epsilon(total)))
    return tuple(found)


def report(book: Book, now: int, caps: Caps | None, points: int = CURVE_POINTS) -> dict[str, Any]:
    """The whole ledger, JSON-able. caps: the policy's, for what is left; without them nothing is said about that."""
    opened, reserved, window = book.opened, book.reserved(), book.window(now)
    if opened is None:
        return {"schema_version": SCHEMA_VERSION, "entries": 0}
    held, held_in_year = book.epsilon(book.spent, reserved), book.epsilon(window, reserved)
    return {
        "schema_version": SCHEMA_VERSION,
        "data_set": opened.dataset,
        "unit": "patient",
        "delta": opened.delta,
        "opened_at": _time(opened.at),
        "now": _time(now),
        "head": {"entries": book.head.entries, "hash": book.head.hash.hex()},
        "spent": book.epsilon(book.spent),
        "reserved": book.epsilon(reserved),
        "spent_and_reserved": held,
        "year": {
            "days": WINDOW_DAYS,
            "spent": book.epsilon(window),
            "spent_and_reserved": held_in_year,
        },
        "caps": _caps(caps, held, held_in_year),
        "tasks": _tasks(book, reserved),
        "purposes": _purposes(book),
        "years": {str(year): book.epsilon(lines) for year, lines in _by_year(book).items()},
        "runs": [_run(book, name, run) for name, run in book.runs.items()],
        "curve": [{**point._asdict(), "at": _time(point.at)} for point in curve(book, points)],
    }


def render(found: dict[str, Any]) -> str:
    """A report as plain text for a terminal."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"Privacy ledger of data set {found['data_set']}, opened {found['opened_at'][:10]}"
    yield f"Every number is epsilon of one patient at delta {found['delta']:.3g}; parts do not add up to the whole."
    yield ""
    yield f"  spent for ever        {found['spent']:8.3f}"
    yield f"  with open runs        {found['spent_and_reserved']:8.3f}"
    yield f"  spent in {found['year']['days']} days     {found['year']['spent']:8.3f}"
    yield f"  with open runs        {found['year']['spent_and_reserved']:8.3f}"
    caps = found["caps"]
    if caps:
        yield f"  left for ever         {caps['left_data_set']:8.3f} of {caps['data_set']:g}"
        yield f"  left in {found['year']['days']} days      {caps['left_year']:8.3f} of {caps['year']:g}"
        yield "  A plan of more than what is left may still fit, as parts do not add up to the whole; what decides is:"
        yield "  cameo-node policy check PLAN"
        yield "  Only the data protection officer changes the caps, in policy.yaml; nothing resets what is spent."
    parts = {
        "By task": _task_rows(found),
        "By purpose": _purpose_rows(found),
        "By run": _run_rows(found),
        "Spent after each release": _curve_rows(found),
    }
    for title, rows in parts.items():
        if rows:
            yield ""
            yield title
            yield from rows
    yield ""
    yield f"{found['head']['entries']} entries, head {found['head']['hash'][:16]}"


def _task_rows(found: dict[str, Any]) -> list[str]:
    return [
        f"  {row['task']:<20} {row['releases']:6d} released {row['spent']:8.3f}  {row['releases_reserved']:6d} reserved"
        for row in found["tasks"]
    ]


def _purpose_rows(found: dict[str, Any]) -> list[str]:
    return [f"  {row['purpose']:<20} {row['releases']:6d} released {row['spent']:8.3f}" for row in found["purposes"]]


def _run_rows(found: dict[str, Any]) -> list[str]:
    return [
        f"  {row['run'][:20]:<20} {row['rounds']:6d} rounds   {row['spent']:8.3f}  {row['state']}, {row['at'][:10]}"
        for row in found["runs"]
    ]


def _curve_rows(found: dict[str, Any]) -> list[str]:
    whole = found["curve"]
    step = max(1, -(-len(whole) // _CURVE_ROWS))
    points = [point for number, point in enumerate(whole, start=1) if number % step == 0 or number == len(whole)]
    highest = max((point["epsilon"] for point in points), default=0.0) or 1.0
    return [
        f"  {point['release']:6d}  {point['at'][:10]}  {point['purpose']:<13} {point['epsilon']:8.3f}"
        f" {'#' * round(_BAR * point['epsilon'] / highest)}"
        for point in points
    ]


def _caps(caps: Caps | None, held: float, held_in_year: float) -> dict[str, float] | None:
    if caps is None:
        return None
    return {
        "data_set": caps.dataset,
        "year": caps.year,
        "left_data_set": max(0.0, caps.dataset - held),
        "left_year": max(0.0, caps.year - held_in_year),
    }


def _tasks(book: Book, reserved: Counter[Line]) -> list[dict[str, Any]]:
    spent, waiting = _by_task(book.spent), _by_task(reserved)
    return [
        {
            "task": task,
            "spent": book.epsilon(spent.get(task, Counter())),
            "releases": spent.get(task, Counter()).total(),
            "reserved": book.epsilon(waiting.get(task, Counter())),
            "releases_reserved": waiting.get(task, Counter()).total(),
        }
        for task in dict.fromkeys([*spent, *waiting])
    ]


def _purposes(book: Book) -> list[dict[str, Any]]:
    """Purpose -> epsilon of its releases alone, in order of first use. A release may cover several tasks."""
    lines: dict[str, Counter[Line]] = {}
    releases: Counter[str] = Counter()
    for entry, _ in book.rounds.values():
        purpose = PURPOSES[entry.kind]
        lines.setdefault(purpose, Counter()).update(lines_of(entry.releases))
        releases[purpose] += 1
    return [
        {"purpose": purpose, "spent": book.epsilon(total), "releases": releases[purpose]}
        for purpose, total in lines.items()
    ]


def _run(book: Book, name: str, run: Run) -> dict[str, Any]:
    return {
        "run": name,
        "plan": run.reserved.plan,
        "at": _time(run.reserved.at),
        "state": "closed" if run.closed else "open",
        "rounds": run.rounds,
        "spent": book.epsilon(run.spent),
        "reserved": 0.0 if run.closed else book.epsilon(run.unused),
    }


def _by_task(total: Counter[Line]) -> dict[str, Counter[Line]]:
    found: dict[str, Counter[Line]] = {}
    for line, count in total.items():
        if count > 0:
            found.setdefault(line[0], Counter())[line] += count
    return found


def _by_year(book: Book) -> dict[int, Counter[Line]]:
    found: dict[int, Counter[Line]] = {}
    for day, lines in sorted(book.days.items()):
        year = datetime.fromtimestamp(day * 86_400, UTC).year
        found.setdefault(year, Counter()).update(lines)
    return found


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
