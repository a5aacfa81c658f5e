"""Checks of a whole pack: every finding with file, line, code and remedy. No patient is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from cameo_client.tags import lint_pack
from cameo_client.tags.bind import BoundRule, bind_rule
from cameo_client.tags.finding import Fault, Finding, Level, errors, refuse
from cameo_client.tags.pack import REVIEW_ORDER, Pack, Review, Rule, parse_pack
from cameo_client.tags.predicate import columns, parse
from cameo_client.tags.regions import false_boxes, true_boxes
from cameo_client.tags.schema import SENSITIVITY_ORDER, Schema
from cameo_client.tags.strict_yaml import Document
from cameo_client.tags.typecheck import check, check_value
from cameo_client.tags.wording import banned_phrase, placeholders, stray_brace

# Never a reason for a tag, whatever a catalogue offers: what people can pay, spend or are insured for.
FORBIDDEN_WORDS = ("income", "spend", "ability_to_pay", "credit", "premium", "wealth", "price", "purchase")
Remark = tuple[str, Level, Fault]


@dataclass(frozen=True)
class Subject:
    """What one check looks at."""

    item: BoundRule
    schema: Schema
    today: date


def lint(
    text: str, file: str, schema: Schema, *, today: date, previous: Pack | None = None
) -> tuple[Pack | None, tuple[BoundRule, ...], tuple[Finding, ...]]:
    """Check a pack's text: (pack or None, the rules that bind, all findings in file order).

    previous: the pack that is in force; a rule whose logic changed needs a higher version.
    """
    pack, document, found = parse_pack(text, file)
    if pack is None:
        return None, (), found
    findings: list[Finding] = []
    bound: list[BoundRule] = []
    digest = pack.sha256()
    for index, rule in enumerate(pack.rules):
        try:
            item = bind_rule(rule, pack, schema, pack_sha256=digest)
        except Fault as fault:
            for field, remark in _unbound(rule, schema, fault):
                findings.append(_at(document, file, index, rule, field, "error", remark))
            continue
        bound.append(item)
        for rule_check in RULE_CHECKS:
            for field, level, remark in rule_check(Subject(item, schema, today)):
                findings.append(_at(document, file, index, rule, field, level, remark))
    if pack.pack.facts_schema != schema.id:
        remark = Fault("schema-mismatch", f"the pack is for {pack.pack.facts_schema}, the facts are {schema.id}",
                      "use the pack of this catalogue, or set pack.facts_schema")  # fmt: skip
        line = document.line(("pack", "facts_schema"))
        findings.append(Finding(file=file, line=line, code=remark.code, what=remark.what, do=remark.do))
    for rule_id, level, remark in lint_pack.check(pack, bound, schema, previous):
        index = next(i for i, rule in enumerate(pack.rules) if rule.id == rule_id)
        findings.append(_at(document, file, index, pack.rules[index], "id", level, remark))
    findings.sort(key=lambda item: (item.line, item.code))
    return pack, tuple(bound), tuple(findings)


def bind_pack(text: str, file: str, schema: Schema, *, today: date) -> tuple[Pack, tuple[BoundRule, ...]]:
    """The pack and its rules, ready to evaluate; any error of the lint raises `OperatorError`."""
    pack, bound, findings = lint(text, file, schema, today=today)
    refuse(findings)
    assert pack is not None
    assert not errors(findings)
    return pack, bound


def _at(document: Document, file: str, index: int, rule: Rule, field: str, level: Level, fault: Fault) -> Finding:
    line = document.line(("rules", index, *field.split(".")))
    return Finding(file=file, line=line, code=fault.code, what=fault.what, do=fault.do, level=level, rule=rule.id)


def _unbound(rule: Rule, schema: Schema, fault: Fault) -> Iterator[tuple[str, Fault]]:
    """Every fault of the predicates of a rule that does not bind; without one it is `fault`, of the hysteresis."""
    found: list[tuple[str, Fault]] = []
    for field, text in (("when", rule.when), ("unless", rule.unless)):
        if field == "unless" and not text.strip():
            continue
        try:
            found += [(field, one) for one in check(parse(text), schema)]
        except Fault as one:
            found.append((field, one))
    yield from found or [("hysteresis", fault)]


def _logic(about: Subject) -> Iterator[Remark]:
    if true_boxes(about.item.enter, about.schema) == []:
        yield "when", "error", Fault("never-true", "no patient can make it true", "correct the thresholds")
    if false_boxes(about.item.when, about.schema) == []:
        yield "when", "error", Fault("always-true", "no patient can make it false", "say whom the rule is about")


def _model(about: Subject) -> Iterator[Remark]:
    need = about.item.rule.model
    if len(about.item.models) > 1:
        yield (
            "when",
            "error",
            Fault(
                "model-several",
                f"outputs of {' and '.join(about.item.models)} in one rule",
                "make one rule for each model",
            ),
        )
    elif about.item.models and need is None:
        yield (
            "when",
            "error",
            Fault(
                "model-undeclared",
                f"the rule reads the model {about.item.models[0]}",
                "add model.name, min_version and max_age_days",
            ),
        )
    elif need is not None and about.item.models != (need.name,):
        used = about.item.models[0] if about.item.models else "no model"
        yield (
            "model.name",
            "error",
            Fault(
                "model-mismatch",
                f"model.name is {need.name}, the predicate reads {used}",
                "name the model that is read",
            ),
        )


def _purpose(about: Subject) -> Iterator[Remark]:
    rule = about.item.rule
    for name in about.item.columns:
        if any(word in name for word in FORBIDDEN_WORDS):
            yield "when", "error", Fault("column-forbidden", f"{name} must never trigger a tag", "remove it")
        elif rule.purpose not in about.schema.column(name).purposes:
            allowed = ", ".join(about.schema.column(name).purposes) or "nothing"
            yield (
                "purpose",
                "error",
                Fault(
                    "purpose-forbids-column",
                    f"{name} may be read for {allowed}, not for {rule.purpose}",
                    "drop the column or change the purpose",
                ),
            )
    if rule.funding == "third_party" and rule.purpose != "marketing":
        yield (
            "purpose",
            "error",
            Fault(
                "third-party-is-marketing",
                f"a third party pays, but the purpose is {rule.purpose}",
                "set purpose: marketing",
            ),
        )
    if rule.contact == "safety" and rule.purpose != "care_management":
        yield (
            "contact",
            "error",
            Fault("safety-is-care", "a safety message of another purpose than care", "set contact: patient"),
        )


def _sensitivity(about: Subject) -> Iterator[Remark]:
    rule, level = about.item.rule, about.item.sensitivity
    if SENSITIVITY_ORDER.index(level) < SENSITIVITY_ORDER.index(about.item.computed):
        yield (
            "sensitivity",
            "error",
            Fault(
                "sensitivity-lowered",
                f"declared {level}, but the columns make it {about.item.computed}",
                f"set sensitivity: {about.item.computed} or leave it out",
            ),
        )
        return
    if level == "genetic" and rule.purpose != "care_management":
        yield (
            "purpose",
            "error",
            Fault("genetic-care-only", "genetic facts go to the care team only", "set purpose: care_management"),
        )
    if level == "mental" and rule.purpose == "marketing":
        yield (
            "purpose",
            "error",
            Fault("mental-never-sells", "mental health never leads to marketing", "use it in `unless`, or for care"),
        )
    least: Review = "none"
    if level == "genetic":
        least = "two_person"
    elif rule.purpose == "marketing" and level != "normal":
        least = "always" if level == "inferred_health" else "none"
    if REVIEW_ORDER.index(rule.review) < REVIEW_ORDER.index(least):
        yield (
            "review",
            "error",
            Fault("review-too-weak", f"{rule.purpose} on {level} facts needs review: {least}", f"set review: {least}"),
        )


def _people(about: Subject) -> Iterator[Remark]:
    rule = about.item.rule
    if " ".join(rule.owner.split()) == " ".join(rule.reviewer.split()):
        yield (
            "reviewer",
            "error",
            Fault("self-review", "owner and reviewer are the same", "name a second person's role"),
        )
    if rule.review_by < about.today:
        yield (
            "review_by",
            "warning",
            Fault(
                "evidence-expired",
                f"the evidence was to be reviewed by {rule.review_by}; the rule is off",
                "review it and set a new date",
            ),
        )


def _contact(about: Subject) -> Iterator[Remark]:
    if about.item.rule.contact != "none" and about.item.rule.cooldown_days < 1:
        yield (
            "contact",
            "error",
            Fault(
                "cooldown-missing", "a message without a pause before the next one", "set cooldown_days to 1 or more"
            ),
        )


def _wording(about: Subject) -> Iterator[Remark]:
    read = set(columns(about.item.when))
    for field, template in (("explain", about.item.rule.explain), ("explain_staff", about.item.rule.explain_staff)):
        for name in placeholders(template):
            if name not in read:
                yield (
                    field,
                    "error",
                    Fault("explain-column", f"{{{name}}} is not a column of `when`", "use columns of `when` only"),
                )
        if stray_brace(template):
            yield (
                field,
                "error",
                Fault("explain-brace", "a brace that encloses no column", "write {column} or no brace"),
            )
        phrase = banned_phrase(template)
        if phrase:
            yield (
                field,
                "error",
                Fault("explain-banned", f"the phrase {phrase!r}", "say what was seen, promise and threaten nothing"),
            )


def _cases(about: Subject) -> Iterator[Remark]:
    answers = {case.expect for case in about.item.rule.tests}
    if not {"true", "false"} <= answers:
        yield (
            "tests",
            "error",
            Fault("tests-one-sided", "the tests need at least one true and one false", "add the missing example"),
        )
    for index, case in enumerate(about.item.rule.tests):
        for name, value in case.given.items():
            try:
                column = about.schema.column(name)
                if value is not None:
                    check_value(float(value) if type(value) is int else value, column)
            except Fault as fault:
                yield f"tests.{index}", "error", fault
            else:
                if name not in about.item.columns:
                    yield (
                        f"tests.{index}",
                        "warning",
                        Fault("tests-unused-fact", f"{name} is not read by the rule", "remove it"),
                    )


RULE_CHECKS: tuple[Callable[[Subject], Iterator[Remark]], ...] = (
    _logic, _model, _purpose, _sensitivity, _people, _contact, _wording, _cases,
)  # fmt: skip
