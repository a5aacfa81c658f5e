"""The byte form of a ledger is frozen: known entries read as they always did, and known bad ones are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cameo_client.ledger.book import Book
from cameo_client.ledger.entries import Entry, write
from cameo_protocol.errors import Reject
from cameo_protocol.privacy.accountant import gaussian_epsilon

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "ledger_chain.json").read_text())


def extend(book: Book, row: dict[str, str]) -> Entry:
    return book.extend(bytes.fromhex(row["body"]), bytes.fromhex(row["hash"]))


def test_known_entries_read_and_write_as_they_always_did() -> None:
    book = Book()
    for row in VECTORS["entries"]:
        assert write(extend(book, row)).hex() == row["body"]
    assert book.head.entries == len(VECTORS["entries"])
    assert book.head.hash.hex() == VECTORS["entries"][-1]["hash"]
    assert book.epsilon(book.spent) == pytest.approx(gaussian_epsilon(math.sqrt(VECTORS["mu_squared"]), 1e-5))
    assert {name: run.closed for name, run in book.runs.items()} == {"run-1": True, "run-2": False}
    assert book.reserved().total() == 2


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_known_bad_entries_are_refused_and_change_nothing(case: dict[str, Any]) -> None:
    book = Book()
    for row in VECTORS["entries"][: case["after"]]:
        extend(book, row)
    before = (book.head, book.spent.copy(), book.reserved(), len(book.rounds), len(book.runs))
    with pytest.raises(Reject):
        extend(book, case["entry"])
    assert (book.head, book.spent, book.reserved(), len(book.rounds), len(book.runs)) == before
