"""The pack reader refuses every way in which YAML changes a meaning behind its author's back."""

from __future__ import annotations

import time

import pytest

from cameo_client.tags.pack import parse_pack
from cameo_client.tags.strict_yaml import MAX_BYTES, YamlFault, read

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "yaml-duplicate-key", 3),
        (BOMB, "yaml-alias", 1),
        ("a: &x 1\nb: 2\n", "yaml-alias", 1),
        ("base: 1\n<<: {a: 1}\n", "yaml-alias", 2),
        ("a: !!python/object/apply:os.system ['true']\n", "yaml-tag", 1),
        ("a: !!str 1\n", "yaml-tag", 1),
        ("a: 1\n---\nb: 2\n", "yaml-documents", 2),
        ("[" * 10_000, "yaml-too-deep", 1),
        ("a: " + "[" * 13 + "]" * 13, "yaml-too-deep", 1),
        ("? [a, b]\n: 1\n", "yaml-key", 1),
        ("a: yes\n", "yaml-scalar", 1),
        ("x: 1\na: .nan\n", "yaml-scalar", 2),
        ("a: 'open\n", "yaml-syntax", 2),
        ("a: \x00\n", "yaml-syntax", 0),
        ("#" * (MAX_BYTES + 1), "yaml-too-long", 0),
    ],
)
def test_refused_with_code_and_line(text: str, code: str, line: int) -> None:
    started = time.monotonic()
    with pytest.raises(YamlFault) as caught:
        read(text)
    assert (caught.value.code, caught.value.line) == (code, line)
    assert time.monotonic() - started < 2


def test_values_are_what_they_look_like() -> None:
    text = "a: 1\nb: '1'\nc: [2.5, true, null, 1.0.0, 2026-01-01, 12:30, 010]\nd: |\n  two\n  lines\n"
    document = read(text)
    assert document.value == {
        "a": 1,
        "b": "1",
        "c": [2.5, True, None, "1.0.0", "2026-01-01", "12:30", "010"],
        "d": "two\nlines\n",
    }
    assert document.line(("c", 3)) == 3
    assert document.line(("c", 3, "inner", "missing")) == 3


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "a", "pack: 1\nrules: 2", "rules: [1, {}]\npack: {}", "\ufeffpack: {}"]
)
def test_anything_that_is_no_pack_gives_findings_not_a_traceback(text: str) -> None:
    pack, _, findings = parse_pack(text, "x.yaml")
    assert pack is None
    assert findings
    assert all(finding.file == "x.yaml" and finding.do for finding in findings)
