"""What identifiers say, and when two of them are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.linking import (
    DEFAULT_LIMITS,
    KINDS,
    LinkKind,
    LinkRules,
    fan_hash,
    identifier_hash,
    normalize,
)

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+49 (0) 170 / 123-45.67", "491701234567"),
        ("0049 170 1234567", "491701234567"),
        ("+1 (555) 010-9999 ext. 12", "15550109999"),
        ("+1 555 010 9999 x12", "15550109999"),
        ("0170 1234567", "01701234567"),
        ("\u0660\u0661\u0667\u0660 \u0661\u0662\u0663\u0664\u0665\u0666\u0667", "01701234567"),
        ("110", None),
        ("12345678901234567", None),
        ("000049 170 1234567", "491701234567"),
        ("000 000 0000", None),
        ("none", None),
        ("", None),
    ],
)
def test_phone_numbers_are_digits(text, number):
    assert normalize(LinkKind.PHONE, text) == number


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12 Main St., Apt. 4", "12  MAIN ST / apt 4"),
        ("Müllerstraße 5", "MULLERSTRASSE 5"),
        ("1-2 Crème Rd", "1 2 creme rd"),
        ("\u2121 house 1", "tel house 1"),
    ],
)
def test_addresses_are_compared_without_case_accents_and_punctuation(one, other):
    assert normalize(LinkKind.ADDRESS, one) == normalize(LinkKind.ADDRESS, other) is not None


@pytest.mark.parametrize("text", ["unknown", "12345 678", "-----", "a 1", "  "])
def test_what_is_no_address_links_nobody(text):
    assert normalize(LinkKind.ADDRESS, text) is None


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("8.8.8.8", "8.8.8.0/24"),
        (" 8.8.8.250 ", "8.8.8.0/24"),
        ("::ffff:8.8.8.8", "8.8.8.0/24"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001::/48"),
        ("2a00:1450:4001:ffff::1", "2a00:1450:4001::/48"),
        *((private, None) for private in ("10.0.0.1", "192.168.1.1", "127.0.0.1", "100.64.1.1", "fe80::1", "::1")),
        ("224.0.0.1", None),
        ("8.8.8", None),
        ("host", None),
    ],
)
def test_addresses_of_machines_are_blocks_of_the_public_network(text, block):
    assert normalize(LinkKind.IP_BLOCK, text) == block


@pytest.mark.parametrize("kind", [LinkKind.DEVICE, LinkKind.PAYMENT])
@pytest.mark.parametrize(
    ("text", "identifier"),
    [(" d-1 ", "d-1"), ("D-1", "D-1"), ("00000000-0000-0000-0000-000000000000", None), ("NULL", None), ("n/a", None)],
)
def test_devices_and_payment_instruments_stay_as_they_are(kind, text, identifier):
    assert normalize(kind, text) == identifier


@given(st.sampled_from(KINDS), st.text(max_size=40))
def test_what_was_normalized_stays_as_it_is(kind, text):
    once = normalize(kind, text)
    if once is not None and kind is not LinkKind.IP_BLOCK:
        assert normalize(kind, once) == once
        assert once == once.strip() != ""


@given(st.text(max_size=20), st.text(max_size=20))
def test_hashes_tell_texts_kinds_and_keys_apart(one, other):
    hashes = {identifier_hash(kind, one, KEY) for kind in KINDS} | {fan_hash(one, KEY)}
    assert len(hashes) == len(KINDS) + 1
    assert (fan_hash(one, KEY) == fan_hash(other, KEY)) == (one == other)
    assert fan_hash(one, KEY) != fan_hash(one, b"another")
    assert all(0 <= number < 1 << 64 for number in hashes)


def test_rules_that_cannot_be_meant_are_refused():
    assert LinkRules().limits == DEFAULT_LIMITS
    with pytest.raises(ValueError, match="the limit of phone is 1"):
        LinkRules({**DEFAULT_LIMITS, LinkKind.PHONE: 1})
    with pytest.raises(ValueError, match=r"limit of ipAddress, a weak kind, is 1001; it must be at most 1000"):
        LinkRules({**DEFAULT_LIMITS, LinkKind.IP_BLOCK: 1_001})
    with pytest.raises(ValueError, match="review size is 1"):
        LinkRules(review_size=1)
    assert LinkRules({**DEFAULT_LIMITS, LinkKind.DEVICE: 5_000}).limits[LinkKind.DEVICE] == 5_000
