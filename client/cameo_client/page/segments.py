"""The segments of a published model in clinical units, as the hospital's page and report draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cameo_client.data.catalogue import load_catalogue
from cameo_client.node.publication import PublishedModels
from cameo_models.numbering import said
from cameo_models.prototypes import describe_prototypes
from cameo_protocol.facts import Catalogue, Fact
from cameo_protocol.plan import SegmentTask
from cameo_protocol.web.words import measured

MOST_TRAITS: Final = 8


@dataclass(frozen=True)
class Trait:
    """One number of a prototype. text: with its unit; place: on the fact's public scale, 0 to 1."""

    name: str
    text: str
    place: float


@dataclass(frozen=True)
class Segment:
    """One segment: the made-up typical patient that was learnt with noise. note: whether its number carries over."""

    name: str
    traits: tuple[Trait, ...]
    note: str = ""


def segments(published: PublishedModels) -> tuple[Segment, ...]:
    """Every segment by the numbers in which they differ most; () where the run has no segment model."""
    bundle = next((one for one in published.models.values() if isinstance(one.task, SegmentTask)), None)
    if bundle is None or not isinstance(bundle.task, SegmentTask):
        return ()
    catalogue = load_catalogue(published.plan.data.catalogue)
    described = [_traits(catalogue, one) for one in describe_prototypes(catalogue, bundle.task, bundle.parameters)]
    shown = distinctive(described)
    entry = published.numberings.get(bundle.task.name)
    return tuple(
        Segment(
            f"Segment {number}",
            tuple(traits[name] for name in shown if name in traits),
            said(entry, number) if entry else "",
        )
        for number, traits in enumerate(described, start=1)
    )


def distinctive(described: Sequence[Mapping[str, Trait]]) -> list[str]:
    """The names of the traits in which the segments differ most, in the order of the catalogue.

    >>> low, high = Trait("a", "1", 0.1), Trait("a", "9", 0.9)
    >>> distinctive([{"a": low, "b": Trait("b", "2", 0.5)}, {"a": high, "b": Trait("b", "2", 0.5)}])
    ['a', 'b']
    """
    places: dict[str, list[float]] = {}
    for traits in described:
        for name, trait in traits.items():
            places.setdefault(name, []).append(trait.place)
    ranked = sorted(places, key=lambda name: min(places[name]) - max(places[name]))[:MOST_TRAITS]
    return [name for name in places if name in ranked]


def _traits(catalogue: Catalogue, values: Mapping[str, float | str | None]) -> dict[str, Trait]:
    return {
        name: _trait(catalogue.fact(name), float(value))
        for name, value in values.items()
        if isinstance(value, float | int)
    }


def _trait(fact: Fact, value: float) -> Trait:
    low, high = fact.scale or (0.0, 1.0)
    text = measured(value, low, high, "share" if fact.type == "bool" else fact.unit)
    return Trait(fact.title, text, min(1.0, max(0.0, (value - low) / (high - low))))
