"""Laws of the report: any record that is accepted gives a page without broken numbers, and no small count."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cameo_lab.report import ReportRecord, render, svg, wording

Make = Callable[..., ReportRecord]
shares = st.floats(0, 1)
amounts = st.floats(0, 1e6)
# Without "N", so that a name is never the word "None".
names = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="N"), min_size=1, max_size=60)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def rounds(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rounds of any number, some void, with or without figures."""
    return [
        {
            "number": number,
            "kind": draw(st.sampled_from(["train", "evaluate", "recalibrate"])),
            "survivors": draw(st.integers(0, 4)),
            "void": draw(st.booleans()),
            "norm": draw(st.none() | amounts),
            "auc_clear": draw(st.none() | shares),
        }
        for number in range(draw(st.integers(0, 12)))
    ]


def estimates() -> st.SearchStrategy[dict[str, float]]:
    """A value within its interval."""
    ordered = st.lists(shares, min_size=3, max_size=3).map(sorted)
    return ordered.map(lambda three: {"low": three[0], "value": three[1], "high": three[2]})


qualities = st.fixed_dictionaries(
    {
        "label": names,
        "auc_dp": st.none() | estimates(),
        "auc_clear": st.none() | shares,
        "auc_pooled": st.none() | shares,
        "calibration": st.lists(st.fixed_dictionaries({"predicted": shares, "observed": shares}), max_size=5),
    }
)
accounts = st.none() | st.fixed_dictionaries({"spent": amounts, "planned": amounts, "cap": st.floats(1e-3, 20)})
traits = st.fixed_dictionaries(
    {"name": names, "value": st.floats(-1e6, 1e6), "low": st.floats(-1e3, 0), "high": st.floats(1, 1e3)}
)


@quick
@given(rows=rounds(), quality=st.none() | qualities, owns=st.lists(accounts, min_size=4, max_size=4), data=st.data())
def test_every_accepted_record_is_drawn_within_its_frame(
    make: Make, rows: list[dict[str, Any]], quality: dict[str, Any] | None, owns: list[Any], data: st.DataObject
) -> None:
    hospitals = [
        {"name": f"{index} {data.draw(names)}"[:60], "status": "took part", "account": own}
        for index, own in enumerate(owns)
    ]
    segments = {"segments": [{"name": "s", "traits": data.draw(st.lists(traits, min_size=1, max_size=4))}]}
    html = render(make(rounds=rows, quality=quality, hospitals=hospitals, segments=segments, tags=[]))
    assert not re.search(r'="-?(nan|inf)', html)
    assert "None" not in re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    for attribute in ("cx", "x1", "x2"):
        places = [float(value) for value in re.findall(rf' {attribute}="([^"]+)"', html)]
        assert all(-0.01 <= place <= 440.01 for place in places)


@quick
@given(counts=st.lists(st.integers(0, 400), min_size=4, max_size=4), reasons=st.lists(st.integers(0, 60), max_size=4))
def test_no_shown_count_is_small_or_exact(make: Make, counts: list[int], reasons: list[int]) -> None:
    hospitals = make().hospitals
    cells = [
        {
            "hospital": hospital.name,
            "tag": "t",
            "purpose": "p",
            "stored": count,
            "blocked": [{"reason": f"r{chr(97 + place)}", "count": number} for place, number in enumerate(reasons)],
        }
        for hospital, count in zip(hospitals, counts, strict=True)
    ]
    part = render(make(tags=cells)).split('<section id="tags"')[1].split("</section>")[0]
    shown = re.findall(r'<td class="(?:shade\d|num)">([^<]*)</td>', part) + re.findall(r"<b>([^<]*)</b>", part)
    assert len(shown) >= 8
    for text in shown:
        assert text == "&lt;11" or (int(text) >= 10 and int(text) % 5 == 0)


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), wanted=st.integers(1, 10))
def test_ticks_are_few_rising_and_within(low: float, width: float, wanted: int) -> None:
    values = svg.ticks(low, low + width, wanted)
    assert values == sorted(set(values))
    assert len(values) <= wanted + 2
    slack = 1e-6 * max(1.0, abs(low), width)
    assert all(low - slack <= value <= low + width + slack for value in values)


@given(text=st.text(max_size=80))
def test_elements_escape_whatever_they_are_given(text: str) -> None:
    made = svg.element("text", text, class_=text)
    assert made.count("<") == 2
    assert made.count('"') == 2


@given(count=st.integers(0, 10**9))
def test_rounding_moves_a_count_by_two_at_most(count: int) -> None:
    shown = wording.shown_count(count)
    assert (shown is None) == (count < 11)
    assert shown is None or (shown % 5 == 0 and abs(shown - count) <= 2)
