"""The subject that these tests attack."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack_subject import small_subject

from cameo_lab.audit.subject import Subject


@pytest.fixture(scope="session")
def subject() -> Subject:
    """A small plan and the product's code."""
    return small_subject()
