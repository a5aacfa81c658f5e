"""Numbers, times and names as every page and report shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

KINDS_OF_ROUND: Final = {"train": "training", "evaluate": "evaluation", "recalibrate": "recalibration"}
TOWARD: Final = {
    "coord": "the coordinator, with the hospitals it may work with",
    "model": "who holds the models",
    "bare": "anybody, if every mask fell",
}


def thousands(number: int) -> str:
    """Groups of three, parted by a narrow space that does not break: read the same way in every country.

    >>> thousands(1234567)
    '1\u202f234\u202f567'
    """
    return f"{number:,}".replace(",", "\u202f")


def delta_text(value: float) -> str:
    """
    >>> delta_text(1e-5), delta_text(7.04e-4)
    ('10⁻⁵', '7.0 × 10⁻⁴')
    """
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10**exponent
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if abs(mantissa - 1) < 0.005 else f"{mantissa:.1f} × {power}"


def percent_text(value: float) -> str:
    """A share as per cent; below 10 % with one decimal.

    >>> percent_text(0.6), percent_text(0.0451), percent_text(0.0), percent_text(1.0)
    ('60 %', '4.5 %', '0 %', '100 %')
    """
    percent = 100 * value
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def signed_points(value: float) -> str:
    """A difference of shares in percentage points, always with its sign.

    >>> signed_points(0.032), signed_points(-0.004), signed_points(0.0002)
    ('+3.2', '−0.4', '0.0')
    """
    text = f"{abs(100 * value):.1f}"
    return text if text == "0.0" else ("+" if value > 0 else "\u2212") + text


def decimal_estimate(found: Mapping[str, float] | None) -> str:
    """A noised figure with its interval.

    >>> decimal_estimate({"value": 0.8, "low": 0.75, "high": 0.853}), decimal_estimate(None)
    ('0.80 (0.75 to 0.85)', 'too noisy to say')
    """
    return _estimate(found, lambda value: f"{value:.2f}")


def percent_estimate(found: Mapping[str, float] | None) -> str:
    """A noised share with its interval.

    >>> percent_estimate({"value": 0.087, "low": 0.067, "high": 0.106})
    '8.7 % (6.7 to 10.6 %)'
    """
    if not found:
        return _estimate(None, percent_text)
    return f"{100 * found['value']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f} %)"


def points_estimate(found: Mapping[str, float] | None) -> str:
    """A noised difference of shares, in percentage points.

    >>> points_estimate({"value": -0.01, "low": -0.03, "high": 0.02})
    '−1.0 (−3.0 to +2.0) points'
    """
    return f"{_estimate(found, signed_points)} points" if found else _estimate(None, signed_points)


def measured(value: float, low: float, high: float, unit: str) -> str:
    """A clinical value with its unit, to about a hundredth of its public scale: nobody measures a mean age in days.

    >>> measured(43.61, 20, 90, "years"), measured(6.3, 4, 10, "mmol/L"), measured(6182.0, 1000, 12000, "steps/day")
    ('44 years', '6.3 mmol/L', '6\u202f182 steps/day')
    >>> measured(0.248, 0, 1, "share"), measured(26.04, 18, 42, "kg/m2")
    ('25 %', '26.0 kg/m²')
    """
    if unit == "share":
        return f"{value:.0%}".replace("%", " %")
    places = max(0, round(-math.log10((high - low) / 100)))
    return f"{value:,.{places}f}".replace(",", "\u202f").replace("-", "\u2212") + f" {unit_text(unit)}".rstrip()


def unit_text(unit: str) -> str:
    """
    >>> unit_text("mL/min/1.73m2"), unit_text("mmHg")
    ('mL/min/1.73 m²', 'mmHg')
    """
    return unit.replace("1.73m2", "1.73 m²").replace("m2", "m²")


def _estimate(found: Mapping[str, float] | None, text: Any) -> str:
    return f"{text(found['value'])} ({text(found['low'])} to {text(found['high'])})" if found else "too noisy to say"


def moment(text: str) -> str:
    """A time of ours to the minute, in UTC.

    >>> moment("2026-11-24T12:04:17.123456+00:00"), moment("2026-11-24T12:04:17Z"), moment("")
    ('2026-11-24 12:04', '2026-11-24 12:04', '')
    """
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M") if text else ""


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence; many are counted instead.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed([str(i) for i in range(9)], most=2)
    ('a', 'a, b and c', '0, 1 and 7 others')
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} others"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
