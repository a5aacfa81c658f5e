"""policy.yaml: strict YAML, the right line in every refusal, and only the approved lines rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameo_client.policy_file import BEGIN, END, approve, load_policy, parse_policy
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import OperatorError
from cameo_protocol.policy import Policy, Refusal

PRINT = "-".join(["0a1b"] * 10)
TEMPLATE = (conf_dir() / "policy" / "default.yaml").read_text()
FILLED = approve(TEMPLATE, PRINT, {"hospital-a": PRINT, "no": PRINT, "007": PRINT})


def refused(text: str | bytes) -> str:
    with pytest.raises(OperatorError) as caught:
        parse_policy(text.encode() if isinstance(text, str) else text)
    assert caught.value.code == "policy-invalid"
    return caught.value.what


def line_of(text: str, fragment: str) -> int:
    return next(i for i, row in enumerate(text.splitlines(), 1) if fragment in row)


def test_the_template_is_the_default_policy() -> None:
    policy, _ = parse_policy(FILLED.encode())
    assert policy.floors == Policy.model_fields["floors"].default
    assert policy.caps == Policy.model_fields["caps"].default
    assert policy.peers == {"hospital-a": PRINT, "no": PRINT, "007": PRINT}


def test_the_template_names_only_what_is_shipped() -> None:
    policy, _ = parse_policy(FILLED.encode())
    facts = {path.stem for path in (conf_dir() / "facts").glob("*.yaml")}
    labels = {path.stem for path in (conf_dir() / "labels").glob("*.yaml")}
    assert set(policy.allowed.catalogues) <= facts
    assert set(policy.allowed.labels) <= labels


def test_an_unfilled_template_is_refused() -> None:
    assert "coordinator" in refused(TEMPLATE)


def test_a_refusal_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(FILLED)
    policy = load_policy(tmp_path / "policy.yaml")
    (text,) = policy.explain([Refusal("sigma-too-low", "floors.sigma", "sigma 0.1")])
    assert text == f"policy.yaml:{line_of(FILLED, 'sigma: 0.5')} floors.sigma: sigma 0.1 (sigma-too-low)"
    assert policy.line("peers.hospital-a") == line_of(FILLED, '"hospital-a"')
    assert policy.line("peers.unknown") == line_of(FILLED, "peers:")
    assert policy.line("elsewhere") == 1


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("sigma: 0.5", "sigma: -1", "sigma: -1"),
        ("sigma: 0.5", "sigma: 0.5\n  sigma: 0.1", "sigma: 0.1"),
        ("sigma: 0.5", "sigma: &x 0.5", "&x"),
        ("sigma: 0.5", "sigma: *x", "*x"),
        ("models: [logistic, mlp]", "models: [xgboost]", "xgboost"),
        ("colluders: 1", "coluders: 1", "coluders"),
        ("colluders: 1", "? [a]\n  : 1", "[a]"),
        ("tasks: [risk,", "tasks: [[[[[[[[[[[[risk,", "[[["),
        ("sigma: 0.5", "sigma: !!python/object:os.system x", "!!python"),
        ("sigma: 0.5", "sigma: \t@", "@"),
    ],
)
def test_a_fault_names_its_line(old: str, new: str, fragment: str) -> None:
    text = FILLED.replace(old, new)
    assert text != FILLED
    assert refused(text).startswith(f"policy.yaml:{line_of(text, fragment)}: ")


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[]", b"a", b"---\n---\n", b"\x00", b"<<: {version: 1}", b"1: 2"])
def test_what_is_no_policy_is_refused(raw: bytes) -> None:
    refused(raw)


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(FILLED + "#" * (1 << 16))
    with pytest.raises(OperatorError) as caught:
        load_policy(tmp_path / "policy.yaml")
    assert caught.value.code == "file-too-long"


def test_approve_changes_only_what_is_between_the_marks() -> None:
    text = approve(FILLED, PRINT[::-1], {})
    assert 'coordinator: "' + PRINT[::-1] in text
    assert "peers: {}" in text
    outside = [part.split(mark)[i] for part in (FILLED, text) for i, mark in ((0, BEGIN), (1, END))]
    assert outside[:2] == outside[2:]
    assert approve(text, PRINT, {"hospital-a": PRINT, "no": PRINT, "007": PRINT}) == FILLED


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_approve_needs_one_pair_of_marks(text: str) -> None:
    with pytest.raises(OperatorError) as caught:
        approve(text, PRINT, {})
    assert caught.value.code == "policy-marks"


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_an_operator_error(raw: bytes) -> None:
    refused(raw)


@given(raw=st.text(alphabet=st.sampled_from("[]{}:,-?!&*|>'\"%@`#\n ab1"), max_size=60))
def test_any_yaml_like_text_is_a_policy_or_an_operator_error(raw: str) -> None:
    refused(raw)


@given(
    names=st.lists(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True), max_size=6, unique=True),
)
def test_every_name_a_hospital_may_have_comes_back(names: list[str]) -> None:
    peers = dict.fromkeys(names, PRINT)
    assert parse_policy(approve(TEMPLATE, PRINT, peers).encode())[0].peers == peers


def test_the_template_allows_every_catalogue_and_label_that_is_shipped() -> None:
    allowed = parse_policy(FILLED.encode())[0].allowed
    for kind, names in (("facts", allowed.catalogues), ("labels", allowed.labels)):
        assert set(names) == {path.stem for path in (conf_dir() / kind).glob("*.yaml")}
