"""The door for configuration: overrides compose; unknown keys and values out of range are named."""

from __future__ import annotations

import pytest

from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import Experiment


def compose(*overrides: str) -> Experiment:
    return compose_experiment(conf_dir(), overrides)


def refused(*overrides: str) -> OperatorError:
    with pytest.raises(OperatorError) as error:
        compose(*overrides)
    assert error.value.exit_code == ExitCode.USAGE
    assert error.value.do
    return error.value


def test_the_shipped_experiment() -> None:
    experiment = compose()
    assert experiment.name == experiment.data.catalogue == "cardiometabolic"
    assert experiment.risk.rate == experiment.data.recipe["risk_rate"]
    assert experiment.privacy.delta is None


def test_overrides_and_groups() -> None:
    experiment = compose("privacy.epsilon=1.5", "risk=mlp", "privacy=local", "training.rounds=4", "seed=9")
    assert (experiment.privacy.mode, experiment.privacy.epsilon) == ("local", 1.5)
    assert (experiment.risk.model, experiment.training.rounds, experiment.seed) == ("mlp", 4, 9)
    assert compose() == compose()  # one call leaves nothing behind for the next


@pytest.mark.parametrize("group", [path.stem for path in sorted((conf_dir() / "data").glob("*.yaml"))])
def test_each_shipped_data_choice_composes(group: str) -> None:
    experiment = compose(f"data={group}")
    catalogue, label = read_catalogue(experiment.data.catalogue), read_label(experiment.data.label)
    assert label.catalogue == catalogue.id


@pytest.mark.parametrize(
    "override",
    ["trainnig.rounds=3", "risk=forest", "nothing=1", "privacy.noise=0", "training.rounds", "=", "a=[", "seed=${x}"],
)
def test_unknown_keys_are_named(override: str) -> None:
    assert refused(override).code == "config-unknown"


@pytest.mark.parametrize(
    ("overrides", "what", "do"),
    [
        (["data=hart"], "there is no data=hart; did you mean heart?", "cardiometabolic, heart, support2"),
        (["training.round=3"], "there is no key training.round; did you mean training.rounds?", "training.spare"),
        (["trainnig.rounds=3"], "did you mean training.rounds?", "training"),
        (["risk=mlp", "risk.hiden=3"], "did you mean risk.hidden?", "risk.model"),
        (["data=hart", "training.round=3"], "hart", "heart"),
        (["dat=heart"], "did you mean data?", "privacy"),
        (["facts=heart", "labels=t2d_12m"], "there is no key", "data, "),
        (["data = heart"], "'data = heart' is no override", "KEY=VALUE without spaces"),
        (["training.rounds"], "'training.rounds' is no override", "KEY=VALUE"),
    ],
)
def test_a_typo_is_told_what_was_meant(overrides: list[str], what: str, do: str) -> None:
    error = refused(*overrides)
    assert what in error.what
    assert do in error.do
    assert "hydra" not in (error.what + error.do).lower()
    assert "+" not in error.what + error.do


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("privacy.epsilon=0", "privacy.epsilon"),
        ("privacy.epsilon=-1", "privacy.epsilon"),
        ("privacy.epsilon=21", "privacy.epsilon"),
        ("privacy.epsilon=.nan", "privacy.epsilon"),
        ("privacy.epsilon=much", "privacy.epsilon"),
        ("privacy.mode=none", "privacy.mode"),
        ("privacy.delta=0.5", "privacy.delta"),
        ("training.rounds=0", "training.rounds"),
        ("training.rounds=2.5", "training.rounds"),
        ("data.population=0", "data.population"),
        ("data.holdout=1", "data.holdout"),
        ("segment.clusters=1", "segment.clusters"),
        ("evaluation.bins=3", "evaluation.bins"),
        ("cohort.threshold=1", "cohort.threshold"),
        ("deadlines.stage=0", "deadlines.stage"),
        ("name=../x", "name"),
        ("+more=1", "more"),
    ],
)
def test_values_out_of_range_are_named(override: str, field: str) -> None:
    error = refused(override)
    assert error.code == "config-invalid"
    assert field in error.what


def test_every_fault_is_named_at_once() -> None:
    what = refused("privacy.epsilon=0", "training.rounds=0").what
    assert "privacy.epsilon" in what
    assert "training.rounds" in what


@pytest.mark.parametrize("name", ["nothing", "../facts/heart", "", "heart.yaml"])
def test_unknown_definitions_name_those_there_are(name: str) -> None:
    for read, known in ((read_catalogue, "heart"), (read_label, "heart_disease")):
        with pytest.raises(OperatorError) as error:
            read(name)
        assert error.value.code == "definition-missing"
        assert known in error.value.do
