"""What is sealed opens for whom and as what it was sealed for, and not otherwise."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.errors import Untrusted
from skerry.trust.keys import new_sealing_key
from skerry.trust.sealing import Binding, decrypt_with, encrypt_value, open_secret, seal_secret

pytestmark = pytest.mark.trust

PEM, PUBLIC = new_sealing_key()
BINDING = Binding(host="press-1", name="db-password", version=3, id="a" * 32)
VALUE = b"correct horse\x00battery"


def test_a_value_opens_for_its_host_as_what_it_is() -> None:
    sealed = seal_secret(VALUE, PUBLIC, BINDING)
    assert VALUE not in base64.b64decode(sealed)
    assert open_secret(sealed, PEM, BINDING) == VALUE
    assert sealed != seal_secret(VALUE, PUBLIC, BINDING)


@pytest.mark.rule("SECRET-2")
@pytest.mark.parametrize(
    "changed", ({"host": "press-2"}, {"name": "other"}, {"version": 4}, {"id": "b" * 32}), ids=str
)
def test_a_value_does_not_open_as_something_else(changed: dict[str, object]) -> None:
    sealed = seal_secret(VALUE, PUBLIC, BINDING)
    with pytest.raises(Untrusted) as caught:
        open_secret(sealed, PEM, msgspec.structs.replace(BINDING, **changed))
    assert caught.value.code == "secret.sealed_otherwise"
    assert VALUE.decode() not in str(caught.value)


@pytest.mark.rule("SECRET-2")
def test_a_value_does_not_open_with_another_key_or_with_what_is_no_key() -> None:
    sealed = seal_secret(VALUE, PUBLIC, BINDING)
    for pem in (new_sealing_key()[0], b"", b"-----BEGIN PRIVATE KEY-----"):
        with pytest.raises(Untrusted):
            open_secret(sealed, pem, BINDING)


@pytest.mark.rule("SECRET-2")
@given(st.data())
def test_what_was_altered_does_not_open(data: st.DataObject) -> None:
    sealed = bytearray(base64.b64decode(seal_secret(VALUE, PUBLIC, BINDING)))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(sealed)))
    for altered in (bytes(sealed), bytes(sealed[:cut])):
        with pytest.raises(Untrusted):
            open_secret(base64.b64encode(altered).decode(), PEM, BINDING)


@pytest.mark.parametrize("public", ("", "AAAA", base64.b64encode(bytes(32)).decode()))
def test_nothing_is_sealed_to_what_is_no_key(public: str) -> None:
    with pytest.raises(Untrusted):
        seal_secret(VALUE, public, BINDING)


@pytest.mark.rule("SECRET-2")
@given(st.data())
def test_what_is_stored_opens_as_itself_alone(data: st.DataObject) -> None:
    key, encrypted = encrypt_value(VALUE, b"one")
    assert decrypt_with(key, encrypted, b"one") == VALUE
    altered = bytearray(encrypted)
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= 1
    wrong = [
        (key, encrypted, b"two"),
        (bytes(32), encrypted, b"one"),
        (key, bytes(altered), b"one"),
        (key, b"", b"one"),
    ]
    for parts in wrong:
        with pytest.raises(Untrusted):
            decrypt_with(*parts)
