"""The shipped definitions load strictly, fit each other, and hold what the rules and the portrait need."""

from __future__ import annotations

from pathlib import Path

import pytest

from cameo_client.data.catalogue import load_catalogue, load_label, load_labels, load_source
from cameo_client.tags.pack import load_pack
from cameo_client.tags.predicate import columns, parse
from cameo_client.tags.schema import schema_of
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Catalogue, Consistency, Derivation, Fact, check_label, feature_names, parse_catalogue
from cameo_protocol.strict_yaml import MAX_BYTES, parse_yaml

NAMES = ("heart", "cardiometabolic", "support2")
RULE_FACTS = {
    "sbp": "float", "dbp": "float", "metformin_fills_90d": "int", "dx_t2d": "bool", "dx_t2d_years": "float",
    "dx_htn": "bool", "bmi": "float", "ldl": "float", "family_hx_lung": "bool", "smoker": "bool", "age": "float",
    "glu_days_high_streak": "int", "ppg": "float", "bp_days_high_streak": "int", "steps_rate_30d": "float",
    "insulin": "bool", "days_since_visit": "int", "sex": "enum", "hba1c": "float",
}  # fmt: skip


@pytest.mark.parametrize("name", ["cardiometabolic", "heart"])
def test_every_column_of_every_shipped_rule_exists(name: str) -> None:
    """A rule reads facts, scores made of them, the risk of one of its labels, or the segment; and nothing else."""
    catalogue, pack = load_catalogue(name), load_pack(conf_dir() / "tags" / f"{name}.yaml")
    facts = {fact.name for fact in catalogue.facts}
    risks = {f"risk_{label.id}" for label in load_labels(catalogue)}
    read: set[str] = set()
    for rule in pack.rules:
        read |= {column for text in (rule.when, rule.unless) if text.strip() for column in columns(parse(text))}
    scores = {column.name for column in schema_of(catalogue).columns.values() if column.score}
    assert read - risks - facts - scores <= {column for column in read if column.startswith("segment")}
    assert read & facts
    if name == "cardiometabolic":
        assert RULE_FACTS.keys() - {"sex", "hba1c"} <= read


@pytest.mark.parametrize("name", NAMES)
def test_shipped_definitions_fit_each_other(name: str) -> None:
    catalogue = load_catalogue(name)
    source = load_source(name, Path("somewhere.csv"))
    source.mapping.check(catalogue)
    labels = load_labels(catalogue)
    assert labels
    for label in labels:
        assert source.mapping.outcomes[label.outcome].window_days == label.window_days
        assert load_label(label.id, catalogue) == label
    assert len(feature_names(catalogue)) == len(set(feature_names(catalogue)))


def test_every_fact_of_the_shipped_rules_is_there() -> None:
    catalogue = load_catalogue("cardiometabolic")
    assert {name: catalogue.fact(name).type for name in RULE_FACTS} == RULE_FACTS
    assert {fact.group for fact in catalogue.facts} == {"static", "dynamic", "behaviour", "need"}
    assert {"genetic", "mental"} <= {fact.sensitivity for fact in catalogue.facts}
    assert not catalogue.synthetic  # made-up patients are marked by their mapping


def test_genetic_and_mental_facts_serve_care_only_and_no_model() -> None:
    for fact in load_catalogue("cardiometabolic").facts:
        if fact.sensitivity in ("genetic", "mental"):
            assert fact.purposes == ("care_management",)
            assert not fact.model


@pytest.mark.parametrize("name", ["nope", "../heart", "HEART", "heart.yaml", "", "a" * 60])
def test_an_unknown_definition_names_the_known_ones(name: str) -> None:
    with pytest.raises(OperatorError) as caught:
        load_catalogue(name)
    assert caught.value.code == "definition-missing"
    assert "heart" in caught.value.do


def test_a_label_of_another_catalogue_is_refused() -> None:
    with pytest.raises(OperatorError, match="label-mismatch"):
        load_label("t2d_12m", load_catalogue("heart"))


def test_a_label_whose_outcome_is_a_fact_is_refused() -> None:
    catalogue = load_catalogue("heart")
    leaking = load_label("heart_disease", catalogue).model_copy(update={"outcome": "thal"})
    with pytest.raises(OperatorError, match="would read what it predicts"):
        check_label(leaking, catalogue)


def test_a_label_excludes_by_bools_only() -> None:
    catalogue = load_catalogue("heart")
    wrong = load_label("heart_disease", catalogue).model_copy(update={"exclude": ("age",)})
    with pytest.raises(OperatorError, match="no bool fact"):
        check_label(wrong, catalogue)


def test_no_fact_can_look_past_the_index_date() -> None:
    with pytest.raises(ValueError, match="until_days"):
        Derivation.model_validate({"how": "last", "until_days": -1})
    with pytest.raises(ValueError, match="empty"):
        Derivation(how="last", lookback_days=30, until_days=30)


@pytest.mark.parametrize(
    ("kind", "fact", "other"),
    [("below", "sex", "age"), ("only_if", "age", "chol"), ("at_most", "age", "nope"), ("only_if", "cp", "fbs")],
)
def test_consistency_rules_are_type_checked(kind: str, fact: str, other: str) -> None:
    body = load_catalogue("heart").model_dump()
    body["consistency"] = [{"id": "x", "kind": kind, "fact": fact, "other": other}]
    with pytest.raises(ValueError, match="does not apply"):
        Catalogue.model_validate(body)


def test_the_hash_covers_every_number() -> None:
    catalogue = load_catalogue("heart")
    facts = (catalogue.facts[0].model_copy(update={"scale": (30.0, 81.0)}), *catalogue.facts[1:])
    rule = Consistency(id="x", kind="below", fact="chol", other="thalach")
    assert len({c.sha256() for c in (
        catalogue, catalogue.model_copy(update={"facts": facts}), catalogue.model_copy(update={"consistency": (rule,)})
    )}) == 3  # fmt: skip
    assert load_catalogue("heart").sha256() == catalogue.sha256()


def test_a_number_without_plausible_range_is_refused() -> None:
    with pytest.raises(ValueError, match="plausible"):
        Fact(name="x", meaning="something", type="float", group="static")


BAD_YAML = {
    "key twice": b"id: a\nid: b\n",
    "key twice, deep": b"a:\n  b: {c: 1, c: 2}\n",
    "anchor": b"a: &x [1]\nb: *x\n",
    "alias bomb": b"a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "merge key": b"a:\n  <<: {b: 1}\n",
    "tag": b"a: !!python/object/apply:os.system ['true']\n",
    "tag str": b"a: !!str 1\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "too deep": b"[" * 40 + b"]" * 40,
    "not utf-8": b"a: \xff\n",
    "nul": b"a: \0\n",
    "unclosed": b"a: [1, 2\n",
    "list as key": b"? [a]\n: 1\n",
    "too long": b"#" * (MAX_BYTES + 1),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_yaml_outside_the_subset_is_refused(name: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse_yaml(BAD_YAML[name], name="x.yaml")
    assert caught.value.code == "yaml-refused"
    assert "x.yaml" in caught.value.what


def test_a_wrong_field_is_named() -> None:
    text = (conf_dir() / "facts" / "heart.yaml").read_bytes().replace(b"unit: years", b"units: years", 1)
    with pytest.raises(OperatorError, match=r"x\.yaml, line 15: facts\.0\.units") as caught:
        parse_catalogue(text, name="x.yaml")
    assert caught.value.code == "definition-invalid"


def test_a_hospital_may_bring_its_own_mapping_file(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    text = (conf_dir() / "sources" / "heart.yaml").read_text()
    own.write_text(text.replace("id: heart", "id: our-clinic", 1))
    assert load_source(str(own), tmp_path / "x.csv").mapping.id == "our-clinic"
    own.write_text(text + "facts2: {}\n")
    with pytest.raises(OperatorError, match="definition-invalid"):
        load_source(str(own), tmp_path / "x.csv")
    with pytest.raises(OperatorError, match="definition-unreadable"):
        load_source(str(tmp_path / "gone.yaml"), tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("catalogue: heart", "catalogue: other", "written for the catalogue other"),
        ("  chol: 5", "  cholesterol: 5", "no fact of the catalogue"),
        ('"0": female', '"0": woman', "does not list"),
        ("  fbs: 6", '  fbs: {column: 6, values: {"0": no_sugar}}', "true or false"),
        ("  age: 1\n", "", "leaves out age"),
        ('delimiter: ","', 'delimiter: "a"', "delimiter is one character"),
        ("  chol: 5", "  chol: 4", "used twice"),
        ("  chol: 5", "  chol: cholesterol", "without a header"),
        ("  chol: 5", "  chol: {column: 5, date: true}", "needs the snapshot date"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    text = (conf_dir() / "sources" / "heart.yaml").read_text()
    assert old in text
    own = tmp_path / "own.yaml"
    own.write_text(text.replace(old, new, 1))
    with pytest.raises(OperatorError, match=problem):
        load_source(str(own), tmp_path / "x.csv").mapping.check(load_catalogue("heart"))
