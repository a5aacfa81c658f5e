"""What a demo runs on: four hospitals with their data, consents and keys, and the overrides of the experiment."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cameo_protocol.errors import ExitCode, OperatorError

SEED = 7
SYNTHETIC_PATIENTS = 4000
FORMAT: Final = "duckdb"
HEART_SITES = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}
HEART_NOTE = (
    "UCI Heart Disease (id 45, CC BY 4.0): A. Janosi, W. Steinbrunn, M. Pfisterer, R. Detrano. "
    "The data set has no consents; those of this demo are fictional."
)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What the user asked for. out: folder for everything the demo leaves; None: ./cameo-demo.

    postgres: where the last made-up hospital lies, see `postgres.last_in_postgres`.
    """

    data: Literal["synthetic", "heart"] = "synthetic"
    data_dir: Path | None = None
    postgres: str = "auto"
    out: Path | None = None
    rounds: int | None = None
    epsilon: float | None = None
    privacy: Literal["distributed", "local"] = "distributed"
    risk_model: Literal["logistic", "mlp"] = "logistic"
    open_report: bool = True


@dataclass(frozen=True, kw_only=True)
class DemoSite:
    """One hospital: its source as `cameo-node init` takes it, its consent decisions, and its pseudonym key."""

    name: str
    kind: str
    data: str
    mapping: str
    consents: Path
    pseudonym_key: Path
    password_env: str | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything prepared. overrides: for `cameo run`. title, synthetic, fictional_consents: for the report."""

    title: str
    sites: tuple[DemoSite, ...]
    overrides: tuple[str, ...]
    synthetic: bool
    note: str


def prepare(options: DemoOptions, out: Path) -> Setting:
    """Write or find the data of four hospitals below `out`/data. Nothing else is started yet.

    Missing files are an `OperatorError` "demo-data-missing" (exit 6).
    """
    folder = out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    make = _heart if options.data == "heart" else _synthetic
    return make(options, folder)


def overrides(options: DemoOptions, data: str) -> tuple[str, ...]:
    """Hydra overrides of this demo. Its hospitals are not started again, so nobody waits long for them."""
    chosen = ["deadlines.regroup=5", f"data={data}", f"privacy={options.privacy}", f"risk={options.risk_model}"]
    if options.rounds is not None:
        chosen.append(f"training.rounds={options.rounds}")
    if options.epsilon is not None:
        chosen.append(f"privacy.epsilon={options.epsilon}")
    return tuple(chosen)


def _synthetic(options: DemoOptions, folder: Path) -> Setting:
    from cameo_lab.generate.generator import generate, source_of

    made = generate(folder / "hospitals", 4, SYNTHETIC_PATIENTS, SEED, formats=(FORMAT,))
    kind, mapping = source_of(FORMAT)
    sites = tuple(
        DemoSite(
            name=site.name,
            kind=kind,
            data=str(site.place(FORMAT)),
            mapping=mapping,
            consents=site.consents,
            pseudonym_key=_pseudonym_key(folder, site.name),
        )
        for site in made.sites
    )
    population = sum(site.patients for site in made.sites)
    return Setting(
        title="Synthetic cardiometabolic hospitals",
        sites=sites,
        overrides=(*overrides(options, "cardiometabolic"), f"data.population={population}"),
        synthetic=True,
        note="All patients and all consents are made up by the generator that Cameo ships.",
    )


def _heart(options: DemoOptions, folder: Path) -> Setting:
    import numpy as np
    import polars as pl

    from cameo_lab.generate.consents import draw_consents

    source = options.data_dir
    if source is None:
        raise OperatorError(
            "demo-data-missing",
            what="--data heart needs the folder with the four processed.*.data files",
            do="get them from the UCI repository (id 45), then: cameo demo --data heart --data-dir DIR",
            exit=ExitCode.DATA,
        )
    sites = []
    for number, (name, rows) in enumerate(HEART_SITES.items()):
        table = source / f"processed.{name}.data"
        if not table.is_file():
            raise OperatorError(
                "demo-data-missing",
                what=f"{table} is not there",
                do="name the folder that holds processed.cleveland.data and the other three with --data-dir",
                exit=ExitCode.DATA,
            )
        ids = pl.Series("person_id", [f"row {row}" for row in range(1, rows + 1)])
        consents = folder / f"{name}-consents.csv"
        draw_consents(np.random.default_rng([SEED, number]), ids).write_csv(consents)
        sites.append(
            DemoSite(
                name=name,
                kind="table",
                data=str(table.absolute()),
                mapping="heart",
                consents=consents,
                pseudonym_key=_pseudonym_key(folder, name),
            )
        )
    return Setting(
        title="UCI heart disease, four hospitals",
        sites=tuple(sites),
        overrides=overrides(options, "heart"),
        synthetic=False,
        note=HEART_NOTE,
    )


def _pseudonym_key(folder: Path, name: str) -> Path:
    """A pseudonym key that is the same in every demo, so that its hold-out, and so its figures, can be repeated.

    A real hospital's key is random and made by `cameo-node init`; its other keys are so in the demo too.
    """
    path = folder / f"{name}-pseudonym.key"
    path.touch(mode=0o600)
    path.write_text(hashlib.sha256(f"cameo demo {SEED} {name}".encode()).hexdigest() + "\n")
    return path
