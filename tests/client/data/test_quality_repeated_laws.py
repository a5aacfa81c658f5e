"""Rows that repeat each other are found exactly, however few numbers tell them apart."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from cameo_client.data.quality import repeated_rows
from cameo_client.data.typed import polars_type
from cameo_protocol.facts import Catalogue, Fact

CATALOGUE = Catalogue(
    id="tiny",
    version=1,
    title="Tiny",
    facts=(
        *(Fact(name=f"n{i}", meaning="A number", type="float", group="dynamic", plausible=(0, 1)) for i in range(8)),
        Fact(name="dx", meaning="A diagnosis", type="bool", group="dynamic"),
    ),
)
CELLS = st.sampled_from([None, 0.0, 1.0, -1.0, 1e300, float("nan")])
ROWS = st.lists(st.tuples(*[CELLS] * 8, st.sampled_from([None, True, False])), max_size=12)


@given(rows=ROWS)
def test_the_quick_way_agrees_with_comparing_everything(rows: list[tuple[object, ...]]) -> None:
    schema = {fact.name: polars_type(fact) for fact in CATALOGUE.facts}
    facts = pl.DataFrame(rows, schema=schema, orient="row")
    everything = facts.select(pl.struct(list(schema)).is_duplicated()).to_series()
    assert repeated_rows(facts, CATALOGUE).to_list() == everything.to_list()
