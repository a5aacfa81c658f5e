"""The door for configuration: Hydra composes conf/, the result is checked once and becomes a frozen `Experiment`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from cameo_protocol.errors import OperatorError
from cameo_protocol.faults import all_faults
from cameo_server.planning import Experiment


def compose_experiment(conf: Path, overrides: Sequence[str]) -> Experiment:
    """Compose experiment.yaml of the folder `conf` with Hydra overrides such as "privacy.epsilon=1" or "risk=mlp".

    Raises OperatorError "config-unknown" for a key or group that does not exist and "config-invalid" for a value
    out of range, naming each.
    """
    return _validate(_compose(conf, overrides))


def _compose(conf: Path, overrides: Sequence[str]) -> dict[str, Any]:
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return _composed(conf, overrides)
    except MissingConfigException as error:
        raise _no_choice(error.missing_cfg_file or "", list(error.options or [])) from None
    except OverrideParseException as error:
        raise OperatorError(
            "config-unknown",
            what=f"{error.override!r} is no override",
            do="write KEY=VALUE without spaces around the sign, as in training.rounds=20",
        ) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise _unknown(conf, overrides, error) from None


def _composed(conf: Path, overrides: Sequence[str]) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(config_dir=str(conf.resolve()), version_base="1.3"):
        config = compose(config_name="experiment", overrides=list(overrides))
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


def _no_choice(missing: str, options: list[str]) -> OperatorError:
    """A group such as data has no such choice. missing: as "data/hart"."""
    group, _, choice = missing.rpartition("/")
    return OperatorError(
        "config-unknown",
        what=f"there is no {group}={choice}{_meant(choice, options)}",
        do=f"choose {group}= one of: {', '.join(options)}",
    )


def _unknown(conf: Path, overrides: Sequence[str], error: Exception) -> OperatorError:
    """Of a key that is not there, the key that was meant; of anything else, what Hydra says."""
    named = re.match(r"Could not (?:override|delete) '([^']+)'", str(error))
    if named is None:
        return OperatorError(
            "config-unknown",
            what=_first_lines(error),
            do="see conf/experiment.yaml and its groups for the keys there are, then run again",
        )
    key, known = named[1], _keys(conf, overrides)
    siblings = [one for one in known if one.rpartition(".")[0] == key.rpartition(".")[0]]
    return OperatorError(
        "config-unknown",
        what=f"there is no key {key}{_meant(key, known)}",
        do=f"choose one of: {', '.join(siblings or [one for one in known if '.' not in one])}",
    )


def _keys(conf: Path, overrides: Sequence[str]) -> list[str]:
    """The keys of the experiment, with dots, under the choices of groups that were made, as far as those exist."""
    shipped = _composed(conf, [])
    words = (one.partition("=") for one in overrides)
    made = {group: f"{group}={name}" for group, _, name in words if group in shipped and _exists(conf, group, name)}

    def walk(values: dict[str, Any], above: str) -> Iterator[str]:
        for key, value in values.items():
            yield above + key
            if isinstance(value, dict):
                yield from walk(value, f"{above}{key}.")

    return list(walk(_composed(conf, list(made.values())), ""))


def _exists(conf: Path, group: str, name: str) -> bool:
    return name in [path.stem for path in (conf / group).glob("*.yaml")]


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _validate(values: dict[str, Any]) -> Experiment:
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        what = "; ".join(map(str, all_faults(error, Experiment)))
        raise OperatorError("config-invalid", what=what, do="correct the values named above and run again") from None


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400] or type(error).__name__
