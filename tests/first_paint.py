"""When a page was first painted."""

from __future__ import annotations

from typing import Any

LOOKS, PAUSE_MS = 100, 100


def first_paint(tab: Any) -> float:
    """Milliseconds after the navigation; waits for it. The page's policy allows no waiting by a script in a string."""
    for _ in range(LOOKS):
        paint = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
        if paint > 0:
            return float(paint)
        tab.wait_for_timeout(PAUSE_MS)
    raise AssertionError("the page was not painted")
