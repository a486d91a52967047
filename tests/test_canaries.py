"""What finds leaks finds them: the canary tests can fail."""

import base64
import gzip
import hashlib
import html
import json
from urllib.parse import quote

import pytest

from .canaries import Canaries, Places

CANARIES = Canaries.planted()
WRITTEN = {
    "as it is": lambda text: text,
    "in capitals": str.upper,
    "as JSON": json.dumps,
    "as JSON in JSON": lambda text: json.dumps(json.dumps({"a": [text]})),
    "in a URL": lambda text: f"https://host/users/{quote(text, safe='')}?x=1",
    "in a path": quote,
    "in a page": html.escape,
    "as hexadecimal": lambda text: text.encode().hex(),
    "as bytes of Python's": lambda text: repr(text.encode()),
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "within base64": lambda text: base64.b64encode(f'{{"user":"{text}","more":1}}'.encode()).decode(),
    "within base64, one byte on": lambda text: base64.b64encode(f' {{"user":"{text}","more":1}}'.encode()).decode(),
    "within base64, two bytes on": lambda text: base64.urlsafe_b64encode(f'  {{"user":"{text}"}}'.encode()).decode(),
    "hashed": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "hashed and cut": lambda text: f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}",
    "hashed by MD5": lambda text: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
}


@pytest.mark.parametrize("what", CANARIES.all)
@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_leak_is_found_however_it_is_written(what, written):
    leak = written(CANARIES.all[what])
    assert any(found.startswith(what) for found in CANARIES.leaks(f"before {leak} after"))
    assert any(found.startswith(what) for found in CANARIES.leaks(b"\xff\x00" + leak.encode() + b"\xfe"))


def test_nothing_is_found_where_nothing_is():
    others = Canaries.planted()
    for value in others.all.values():
        for written in WRITTEN.values():
            assert CANARIES.leaks(written(value)) == []
    assert CANARIES.leaks(json.dumps(list(range(10_000)))) == []


def test_a_place_that_tells_nothing_is_not_taken_for_a_clean_one():
    with pytest.raises(AssertionError, match="empty"):
        Places(CANARIES).add("log", "")


def test_the_place_and_the_line_are_named():
    places = Places(CANARIES)
    places.add("log", f"one\ntwo {CANARIES.email}\nthree")
    places.add("spans", gzip.compress(b"x"))
    with pytest.raises(AssertionError) as error:
        places.assert_clean()
    assert "log 0" in str(error.value) and "email (as it is)" in str(error.value) and "two" in str(error.value)
    assert "spans" not in str(error.value)
