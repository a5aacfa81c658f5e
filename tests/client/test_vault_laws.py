"""Laws of the vault: what goes in comes out under the same name and key only, however often the key changed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cameo_client.vault import KEY, MAGIC, OVERHEAD, Kek, Vault
from cameo_protocol.errors import OperatorError

LAW = settings(max_examples=60, deadline=None)
KEYS = st.binary(min_size=KEY, max_size=KEY).map(Kek)
NAMES = st.text(max_size=30)


@LAW
@given(KEYS, NAMES, st.binary(max_size=2000))
def test_what_goes_in_comes_out_and_its_length_alone_shows(kek: Kek, name: str, plain: bytes) -> None:
    sealed = Vault(kek).seal(name, plain)
    assert Vault(kek).unseal(name, sealed) == plain
    assert len(sealed) == OVERHEAD + len(plain)
    if len(plain) > 8:
        assert plain not in sealed.removeprefix(MAGIC)  # the mark in front is public


@LAW
@given(st.lists(KEYS, min_size=2, max_size=5, unique_by=lambda kek: kek.raw), NAMES, st.binary(max_size=200))
def test_any_number_of_new_keys_leaves_the_body_alone(keks: list[Kek], name: str, plain: bytes) -> None:
    sealed = Vault(keks[0]).seal(name, plain)
    body = sealed[-len(plain) - 28 :]
    for old, new in pairwise(keks):
        sealed = Vault(new, former=old).rewrap(name, sealed)
        with pytest.raises(OperatorError):
            Vault(old).unseal(name, sealed)
    assert Vault(keks[-1]).unseal(name, sealed) == plain
    assert sealed.endswith(body)


@LAW
@given(KEYS, NAMES, NAMES)
def test_no_other_name_opens_it(kek: Kek, name: str, other: str) -> None:
    assume(name != other)
    with pytest.raises(OperatorError):
        Vault(kek).unseal(other, Vault(kek).seal(name, b"secret"))


@LAW
@given(KEYS, st.binary(max_size=300), st.data())
def test_any_bytes_are_a_value_or_its_own_error(kek: Kek, noise: bytes, data: st.DataObject) -> None:
    sealed = Vault(kek).seal("a", b"secret")
    place = data.draw(st.integers(0, len(sealed)))
    for wrong in (noise, sealed[:place] + noise, noise + sealed[place:]):
        assume(wrong != sealed)
        with pytest.raises(OperatorError) as error:
            Vault(kek).unseal("a", wrong)
        assert error.value.code in ("vault-damaged", "vault-key-wrong")
