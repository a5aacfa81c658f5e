"""Where the shipped configuration lies: the checkout's conf/ when there is one, else the copy inside the wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """Folder with experiment.yaml, facts/, labels/, tags/, sources/ and policy/. Only a path; nothing is read."""
    checkout = _PACKAGE.parent.parent / "conf"
    return checkout if (checkout / "experiment.yaml").is_file() else _PACKAGE / "_conf"
