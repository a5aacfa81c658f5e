"""Numbers and codes in words. Small counts never come out of here exact."""

from __future__ import annotations

import math

from cameo_client.tags.reasons import REASONS
from cameo_lab.report.record import Hospital, ReportRecord, Statement
from cameo_protocol.web.words import KINDS_OF_ROUND, thousands

SMALLEST_SHOWN = 11
ROUNDED_TO = 5

KINDS = {
    "risk": "risk model",
    "segment": "segment model",
    "evaluation": "evaluation (counts of scores)",
    "recalibration": "recalibration (counts of scores)",
}

STAGES = {
    "upload": "upload: compute, add noise, mask, send",
    "ack": "acknowledge: agree on who is in",
    "reveal": "reveal: open the sum, and only the sum",
}

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def shown_count(count: int) -> int | None:
    """A count as it may be shown: None below 11, otherwise rounded to 5.

    >>> [shown_count(n) for n in (0, 10, 11, 12, 13, 1002)]
    [None, None, 10, 10, 15, 1000]
    """
    if count < SMALLEST_SHOWN:
        return None
    return int(ROUNDED_TO * math.floor(count / ROUNDED_TO + 0.5))


def count_text(count: int) -> str:
    """
    >>> count_text(4), count_text(1234)
    ('<11', '1\u202f235')
    """
    shown = shown_count(count)
    return f"<{SMALLEST_SHOWN}" if shown is None else thousands(shown)


def epsilon_text(value: float) -> str:
    """Rounded up: a claim is never made to look smaller than it is.

    >>> epsilon_text(0.9412), epsilon_text(2.9999999999), epsilon_text(12.34)
    ('0.95', '3.00', '12.4')
    """
    places = 100 if value < 9.995 else 10
    return f"{math.ceil(value * places - 1e-6) / places:.{2 if places == 100 else 1}f}"


def bytes_text(number: int) -> str:
    """
    >>> bytes_text(900), bytes_text(32_000), bytes_text(4_200_000)
    ('900 bytes', '32 kB', '4.2 MB')
    """
    if number < 1000:
        return f"{number} bytes"
    if number < 1_000_000:
        return f"{number / 1000:.0f} kB"
    return f"{number / 1_000_000:.1f} MB"


def seconds_text(value: float) -> str:
    """
    >>> seconds_text(0.034), seconds_text(1.26), seconds_text(42), seconds_text(187)
    ('0.03 s', '1.3 s', '42 s', '3 min 7 s')
    """
    if value < 1:
        return f"{value:.2f} s"
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def number_text(value: float) -> str:
    """A measured value with about three figures, without trailing noise.

    >>> number_text(1431.42), number_text(52.0), number_text(6.9), number_text(0.031)
    ('1\u202f431', '52', '6.9', '0.031')
    """
    return thousands(round(value)) if abs(value) >= 100 else f"{value:.3g}"


def purpose_text(purpose: str) -> str:
    """What a release was for; "–" where the ledger does not say.

    >>> purpose_text("train"), purpose_text("recalibration"), purpose_text("")
    ('training', 'recalibration', '–')
    """
    return KINDS_OF_ROUND.get(purpose, purpose.replace("_", " ").replace("-", " ")) or "–"


def how_many(number: int, noun: str) -> str:
    """
    >>> how_many(4, "hospital"), how_many(1, "hospital"), how_many(30, "round")
    ('four hospitals', 'one hospital', '30 rounds')
    """
    word = NUMBERS[number] if number < len(NUMBERS) else thousands(number)
    return f"{word} {noun}{'' if number == 1 else 's'}"


def status_text(hospital: Hospital) -> str:
    """What became of a hospital."""
    if hospital.status == "lost":
        return f"lost in round {hospital.lost_at_round}"
    return hospital.status


def reason_text(code: str) -> str:
    """A reason code of the tag guards in their own words; any other name with its hyphens as spaces.

    >>> reason_text("review-always"), reason_text("no-consent:marketing")
    ('a person must approve it', 'no consent: marketing')
    """
    if code in REASONS:
        return REASONS[code].staff
    return code.replace("-", " ").replace("_", " ").replace(":", ": ").replace("  ", " ")


def odds_text(epsilon: float) -> str:
    """How much an observer's odds about one patient can move: e^ε, rounded up.

    >>> odds_text(1.0), odds_text(6.0)
    ('2.8', '404')
    """
    factor = math.exp(min(epsilon, 20))
    return f"{math.ceil(factor * 10) / 10:.1f}" if factor < 100 else thousands(math.ceil(factor))


def observer(statement: Statement) -> str:
    """Whom the statement is about, in two or three words."""
    return {"coordinator": "The coordinator", "model": "A model holder", "bare": "If every mask fell"}[statement.toward]


def statement_text(statement: Statement, record: ReportRecord) -> str:
    """One plain sentence for one statement."""
    if statement.toward == "coordinator":
        allies = (
            f"even together with {how_many(record.colluders, 'dishonest hospital')}"
            if record.colluders
            else "acting without any hospital"
        )
        return f"What the coordinator can learn about one patient from every sum it opened, {allies}."
    if statement.toward == "model":
        return "What someone can learn about one patient who is given the finished model and nothing else."
    return (
        "What could be learnt about one patient if the masks of all hospitals were broken"
        " and only their noise were left."
    )


def headline(record: ReportRecord) -> str:
    """What happened, in one sentence."""
    models = [KINDS[task.kind] for task in record.tasks if task.kind in ("risk", "segment")]
    made = " and ".join(f"one {name}" for name in dict.fromkeys(models)) or "no model"
    partners = sum(hospital.status != "declined" for hospital in record.hospitals)
    return f"{how_many(partners, 'hospital').capitalize()} trained {made} together."


def what_happened(record: ReportRecord) -> list[str]:
    """The sentences that follow the headline: what left, what was learnt, what went wrong."""
    uploads = record.uploads
    sentences = [
        f"No patient record left a hospital. {thousands(uploads.masked)} vectors were sent, each one masked,"
        " so that only their sum with the others could be opened, with noise in it."
        if uploads.clear == 0
        else f"{thousands(uploads.clear)} vectors were sent without a mask. This run must not be called private."
    ]
    lost = [hospital for hospital in record.hospitals if hospital.status == "lost"]
    declined = [hospital for hospital in record.hospitals if hospital.status == "declined"]
    for hospital in lost:
        sentences.append(
            f"{hospital.name} was lost in round {hospital.lost_at_round}; its last upload was never opened alone,"
            " and the others went on."
        )
    if declined:
        sentences.append(f"{' and '.join(hospital.name for hospital in declined)} declined to take part.")
    voids = sum(row.void for row in record.rounds)
    if voids:
        sentences.append(f"{how_many(voids, 'round').capitalize()} could not be opened and gave no result.")
    return sentences
