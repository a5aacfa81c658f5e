"""The door for configuration: Hydra composes conf/, the result is checked once and becomes a frozen `Experiment`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from cameo_protocol.errors import OperatorError
from cameo_server.planning import Experiment


def compose_experiment(conf: Path, overrides: Sequence[str]) -> Experiment:
    """Compose experiment.yaml of the folder `conf` with Hydra overrides such as "privacy.epsilon=1" or "risk=mlp".

    Raises OperatorError "config-unknown" for a key or group that does not exist and "config-invalid" for a value
    out of range, naming each.
    """
    return _validate(_compose(conf, overrides))


def _compose(conf: Path, overrides: Sequence[str]) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(config_dir=str(conf.resolve()), version_base="1.3"):
            config = compose(config_name="experiment", overrides=list(overrides))
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise OperatorError(
            "config-unknown",
            what=_first_lines(error),
            do="see conf/experiment.yaml and its groups for the keys there are, then run again",
        ) from None


def _validate(values: dict[str, Any]) -> Experiment:
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        )
        raise OperatorError("config-invalid", what=faults, do="correct the values named above and run again") from None


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400] or type(error).__name__
