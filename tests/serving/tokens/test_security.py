"""Tokens an attacker would try, each written out: every one is refused, and for the reason meant."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from fan_identity.domain.access import CallerKind, Identity
from fan_identity.serving.tokens.problems import TokenError, TokenProblem
from fan_identity.serving.tokens.verifier import MAX_TOKEN_CHARACTERS, TokenVerifier

Claims = Callable[..., dict[str, Any]]


def part(value: object) -> str:
    """A part of a token: JSON, or bytes as they are, in base64url."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: object, claims: object, signature: bytes = b"") -> str:
    return f"{part(header)}.{part(claims)}.{part(signature)}"


def signed(signer: Any, header: bytes | dict[str, Any], claims: bytes | dict[str, Any]) -> str:
    """A token whose parts are exactly these, with the issuer's good RS256 signature."""
    text = f"{part(header)}.{part(claims)}"
    signature = signer.private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{part(signature)}"


def refusal(verifier: TokenVerifier, token: str) -> TokenProblem:
    with pytest.raises(TokenError) as refused:
        asyncio.run(verifier.verify(token))
    assert verifier.cached(token) is None
    with pytest.raises(TokenError) as again:
        verifier.verify_blocking(token)
    assert again.value.code is refused.value.code
    assert str(refused.value) == refused.value.code.value
    return refused.value.code


def test_a_good_token_is_let_in(verifier, signer, claims: Claims):
    """Without this one, every other test here would pass with a verifier that refuses all."""
    caller = asyncio.run(verifier.verify(signer.sign(claims())))
    assert (caller.kind, caller.subject) == (CallerKind.USER, "fan-1")


def test_what_the_helpers_forge_is_let_in_where_nothing_is_wrong_with_it(verifier, signer, claims: Claims):
    token = signed(signer, {"alg": "RS256", "kid": "key-1", "typ": "JWT"}, claims())
    assert asyncio.run(verifier.verify(token)).subject == "fan-1"


# The algorithm


@pytest.mark.parametrize("name", ["none", "None", "nOnE", "NONE", ""])
@pytest.mark.parametrize("signature", [b"", b"x" * 256])
def test_algorithm_none_in_any_spelling(verifier, claims: Claims, name, signature):
    token = forged({"alg": name, "kid": "key-1"}, claims(), signature)
    assert refusal(verifier, token) is TokenProblem.WRONG_ALGORITHM


def test_algorithm_none_even_if_the_part_is_empty_and_the_kid_is_missing(verifier, claims: Claims):
    assert refusal(verifier, forged({"alg": "none"}, claims())) is TokenProblem.WRONG_ALGORITHM


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("public_format", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_hs256_signed_with_the_public_key(verifier, signer, claims: Claims, encoding, public_format):
    public = signer.private.public_key().public_bytes(encoding, public_format)
    for secret in (public, public.strip(), public + b"\n"):
        text = f"{part({'alg': 'HS256', 'kid': 'key-1', 'typ': 'JWT'})}.{part(claims())}"
        token = f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"
        assert refusal(verifier, token) is TokenProblem.WRONG_ALGORITHM


def test_hs256_with_a_shared_secret_published_in_the_jwks(make_verifier, issuer, claims: Claims):
    secret = b"s" * 32
    issuer.keys.append({"kty": "oct", "kid": "secret", "alg": "HS256", "k": part(secret)})
    issuer.keys.append({"kty": "oct", "kid": "secret", "k": part(secret)})
    text = f"{part({'alg': 'HS256', 'kid': 'secret'})}.{part(claims())}"
    token = f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"
    assert refusal(make_verifier(), token) is TokenProblem.WRONG_ALGORITHM


@pytest.mark.parametrize("algorithm", [["RS256"], {"RS256": 1}, 256, None, True, "rs256", "RS256 ", "RS256\0"])
def test_algorithm_that_is_no_name(verifier, claims: Claims, algorithm):
    token = forged({"alg": algorithm, "kid": "key-1"}, claims(), b"x" * 256)
    assert refusal(verifier, token) is TokenProblem.WRONG_ALGORITHM


def test_algorithm_missing(verifier, claims: Claims):
    assert refusal(verifier, forged({"kid": "key-1"}, claims(), b"x" * 256)) is TokenProblem.WRONG_ALGORITHM


def test_algorithm_that_the_settings_do_not_take(verifier, signer, claims: Claims):
    signer.algorithm = "RS512"
    assert refusal(verifier, signer.sign(claims())) is TokenProblem.WRONG_ALGORITHM


def test_algorithm_other_than_the_keys_own(make_verifier, issuer, signer, claims: Claims):
    """The same RSA key, published for RS256, used with PS256, which the settings do take."""
    verifier = make_verifier(algorithms=("RS256", "PS256"))
    signer.algorithm = "PS256"
    assert refusal(verifier, signer.sign(claims())) is TokenProblem.UNKNOWN_KEY


def test_algorithm_of_another_key_type(make_verifier, issuer, signers, claims: Claims):
    """An EC key's token that says RS256, and names the RSA key."""
    token = signers["ES256"].sign(claims(), alg="ES256", kid="key-1")
    assert refusal(make_verifier(), token) is TokenProblem.UNKNOWN_KEY


# The header


@pytest.mark.parametrize("kind", ["JWE", "dpop+jwt", "logout+jwt", "secevent+jwt", "", "JWT ", 1, ["JWT"], {}])
def test_wrong_typ(verifier, signer, claims: Claims, kind):
    token = signed(signer, {"alg": "RS256", "kid": "key-1", "typ": kind}, claims())
    assert refusal(verifier, token) is TokenProblem.WRONG_TYPE


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", None])
def test_typ_that_is_taken(make_verifier, signer, claims: Claims, kind):
    header = {"alg": "RS256", "kid": "key-1"} | ({} if kind is None else {"typ": kind})
    assert asyncio.run(make_verifier().verify(signed(signer, header, claims()))).subject == "fan-1"


@pytest.mark.parametrize(
    "critical", [["b64"], ["exp"], ["x"], [], None, "exp", ["http://example.com/x"], [1], {"exp": 1}]
)
def test_crit_known_or_unknown(verifier, signer, claims: Claims, critical):
    header = {"alg": "RS256", "kid": "key-1", "crit": critical, "exp": 1, "http://example.com/x": 1, "x": 1}
    assert refusal(verifier, signed(signer, header, claims())) is TokenProblem.CRITICAL_HEADER


def test_payload_said_to_be_detached(verifier, signer, claims: Claims):
    token = signed(signer, {"alg": "RS256", "kid": "key-1", "b64": False}, claims())
    assert refusal(verifier, token) is TokenProblem.MALFORMED


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/etc/passwd",
        "file:///dev/null",
        "key-1' OR '1'='1",
        "x' UNION SELECT 'key",
        "key-1\0",
        "key-1 ",
        "KEY-1",
        "key\u20101",
        "$(id)",
        "",
        "http://127.0.0.1/",
        "\u202ekey-1",
    ],
)
def test_kid_with_a_path_or_sql_is_only_ever_compared(verifier, issuer, signer, claims: Claims, kid):
    assert refusal(verifier, signer.sign(claims(), kid=kid)) is TokenProblem.UNKNOWN_KEY
    assert issuer.asked == ["/.well-known/jwks.json"]  # nothing of the kid got there


@pytest.mark.parametrize("kid", [1, ["key-1"], {"key-1": 1}, True, 1.5])
def test_kid_that_is_no_text(verifier, signer, claims: Claims, kid):
    token = signed(signer, {"alg": "RS256", "kid": kid}, claims())
    assert refusal(verifier, token) is TokenProblem.MALFORMED


def test_kid_missing_matches_no_key_that_has_one(verifier, signer, claims: Claims):
    assert refusal(verifier, signed(signer, {"alg": "RS256"}, claims())) is TokenProblem.UNKNOWN_KEY


@pytest.fixture
def attacker(rsa_keys) -> rsa.RSAPrivateKey:
    return rsa_keys[1]


def test_jku_and_x5u_are_ignored_and_nothing_is_fetched(
    verifier, issuer, make_issuer, make_signer, attacker, claims: Claims
):
    own = make_signer(attacker, "RS256", "evil")
    elsewhere = make_issuer()
    elsewhere.keys = [own.jwk, {**own.jwk, "kid": "key-1"}]
    for kid, problem in (("evil", TokenProblem.UNKNOWN_KEY), ("key-1", TokenProblem.BAD_SIGNATURE)):
        for name in ("jku", "x5u"):
            assert refusal(verifier, own.sign(claims(), kid=kid, **{name: elsewhere.url})) is problem
    assert elsewhere.asked == []
    assert issuer.asked == ["/.well-known/jwks.json"]


def test_jwk_in_the_header_is_ignored(verifier, make_signer, attacker, claims: Claims):
    own = make_signer(attacker, "RS256", "evil")
    for kid, problem in (("evil", TokenProblem.UNKNOWN_KEY), ("key-1", TokenProblem.BAD_SIGNATURE)):
        assert refusal(verifier, own.sign(claims(), kid=kid, jwk={**own.jwk, "kid": kid})) is problem


def test_x5c_in_the_header_is_ignored(verifier, make_signer, attacker, claims: Claims):
    own = make_signer(attacker, "RS256", "key-1")
    der = attacker.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    token = own.sign(claims(), x5c=[base64.b64encode(der).decode()])
    assert refusal(verifier, token) is TokenProblem.BAD_SIGNATURE


def test_duplicate_keys_in_the_header(verifier, signer, claims: Claims):
    header = b'{"alg":"none","kid":"key-1","alg":"RS256"}'
    assert refusal(verifier, signed(signer, header, claims())) is TokenProblem.DUPLICATE_KEY


def test_duplicate_keys_in_the_claims(verifier, signer, claims: Claims):
    text = json.dumps(claims())
    doubled = (text[:-1] + ', "sub": "fan-2"}').encode()
    header = {"alg": "RS256", "kid": "key-1"}
    assert refusal(verifier, signed(signer, header, doubled)) is TokenProblem.DUPLICATE_KEY


# The claims


def test_issuer_missing(verifier, signer, claims: Claims):
    assert refusal(verifier, signer.sign(claims(iss=None))) is TokenProblem.MISSING_CLAIM


@pytest.mark.parametrize("wrong", ["https://issuer.example/", "https://evil.example", "", "HTTPS://ISSUER.EXAMPLE"])
def test_issuer_wrong(verifier, signer, claims: Claims, wrong):
    assert refusal(verifier, signer.sign(claims(iss=wrong))) is TokenProblem.WRONG_ISSUER


@pytest.mark.parametrize("wrong", [["https://issuer.example"], {"https://issuer.example": 1}, 1])
def test_issuer_that_is_no_text(verifier, signer, claims: Claims, wrong):
    token = signed(signer, {"alg": "RS256", "kid": "key-1"}, claims(iss=wrong))
    assert refusal(verifier, token) is TokenProblem.WRONG_ISSUER


def test_audience_missing(verifier, signer, claims: Claims):
    assert refusal(verifier, signer.sign(claims(aud=None))) is TokenProblem.WRONG_AUDIENCE


@pytest.mark.parametrize(
    "wrong", ["other", "", "web-client ", "WEB-CLIENT", [], ["other"], {"web-client": 1}, 1, [["web-client"]], [None]]
)
def test_audience_wrong(verifier, signer, claims: Claims, wrong):
    assert refusal(verifier, signer.sign(claims(aud=wrong))) is TokenProblem.WRONG_AUDIENCE


def test_expiry_missing(verifier, signer, claims: Claims):
    assert refusal(verifier, signer.sign(claims(exp=None))) is TokenProblem.MISSING_CLAIM


def test_expiry_past(verifier, signer, claims: Claims):
    assert refusal(verifier, signer.sign(claims(exp=int(time.time()) - 31))) is TokenProblem.EXPIRED


def test_expiry_past_within_the_leeway(verifier, signer, clock, claims: Claims):
    token = signer.sign(claims(exp=int(clock()) - 1))
    assert asyncio.run(verifier.verify(token)).subject == "fan-1"
    assert verifier.cached(token) is None  # remembered until it expires, which it has


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("wrong", ["9999999999", True, [9999999999], {}, "x"])
def test_a_time_that_is_no_number(verifier, signer, claims: Claims, claim, wrong):
    token = signed(signer, {"alg": "RS256", "kid": "key-1"}, claims(**{claim: wrong}))
    assert refusal(verifier, token) in (
        TokenProblem.INVALID_CLAIM,
        TokenProblem.MALFORMED,
        TokenProblem.EXPIRED,  # PyJWT reads True as 1
        TokenProblem.NOT_YET_VALID,
    )


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "-Infinity"])
def test_a_time_beyond_all_numbers(verifier, signer, claims: Claims, number):
    text = json.dumps(claims(exp=0)).replace('"exp": 0', f'"exp": {number}').encode()
    assert refusal(verifier, signed(signer, {"alg": "RS256", "kid": "key-1"}, text)) is TokenProblem.MALFORMED


@pytest.mark.parametrize("value", ['"\\ud800"', "NaN", "Infinity", '"\\udc00\\ud800"'])
def test_claims_that_hold_no_json_value(verifier, signer, claims: Claims, value):
    """Half a character or NaN, which Python reads and nobody else: what is let in must be writable again."""
    text = json.dumps(claims(name=0)).replace('"name": 0', f'"name": {value}').encode()
    assert refusal(verifier, signed(signer, {"alg": "RS256", "kid": "key-1"}, text)) is TokenProblem.MALFORMED


def test_not_before_missing_is_no_harm(verifier, signer, claims: Claims):
    """Cognito's tokens have none."""
    assert "nbf" not in claims()
    assert asyncio.run(verifier.verify(signer.sign(claims()))).subject == "fan-1"


def test_not_before_in_the_future(verifier, signer, claims: Claims):
    assert refusal(verifier, signer.sign(claims(nbf=int(time.time()) + 60))) is TokenProblem.NOT_YET_VALID


def test_issued_in_the_future(verifier, signer, claims: Claims):
    assert refusal(verifier, signer.sign(claims(iat=int(time.time()) + 60))) is TokenProblem.NOT_YET_VALID


def test_token_for_another_use(verifier, signer, claims: Claims):
    assert refusal(verifier, signer.sign(claims(token_use="refresh"))) is TokenProblem.WRONG_USE


# The signature and the form


def test_claims_changed_after_signing(verifier, signer, claims: Claims):
    header, _, signature = signer.sign(claims()).split(".")
    token = f"{header}.{part(claims(sub='fan-2'))}.{signature}"
    assert refusal(verifier, token) is TokenProblem.BAD_SIGNATURE


def test_signature_of_another_key(verifier, make_signer, attacker, claims: Claims):
    assert refusal(verifier, make_signer(attacker, "RS256").sign(claims())) is TokenProblem.BAD_SIGNATURE


def test_signature_missing(verifier, signer, claims: Claims):
    token = signer.sign(claims()).rpartition(".")[0] + "."
    assert refusal(verifier, token) is TokenProblem.BAD_SIGNATURE


@pytest.mark.parametrize("signature", [b"\0" * 64, b"", b"\xff" * 64, b"\0" * 63, b"\0" * 132])
def test_an_ecdsa_signature_of_zeros_and_such(make_verifier, issuer, signers, claims: Claims, signature):
    """CVE-2022-21449: r = s = 0 verified anything."""
    issuer.keys.append(signers["ES256"].jwk)
    token = forged({"alg": "ES256", "kid": "ES256"}, claims(), signature)
    assert refusal(make_verifier(), token) is TokenProblem.BAD_SIGNATURE


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "e30.e30.", "e30..", "\ud800.b.c", "ä.b.c", "[].[].", " "],
)
def test_what_is_no_token(verifier, issuer, token):
    assert refusal(verifier, token) in (TokenProblem.MALFORMED, TokenProblem.WRONG_ALGORITHM)
    assert issuer.asked == []


def test_an_encrypted_token_of_five_parts(verifier):
    assert refusal(verifier, f"{part({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.a.b.c.d") is TokenProblem.MALFORMED


def test_a_header_nested_deeply(verifier):
    token = f"{part(b'[' * 5_000)}.e30.e30"
    assert refusal(verifier, token) is TokenProblem.MALFORMED


def test_claims_nested_deeply(verifier, signer):
    payload = b'{"a":' + b"[" * 4_000 + b"]" * 4
    assert refusal(verifier, signed(signer, {"alg": "RS256", "kid": "key-1"}, payload)) is TokenProblem.MALFORMED


def test_a_token_beyond_8_kb_is_not_even_read(verifier, issuer, signer, claims: Claims):
    good = signer.sign(claims(), filler="")
    room = (MAX_TOKEN_CHARACTERS - len(good)) * 3 // 4
    fits = signer.sign(claims(), filler="x" * room)
    assert MAX_TOKEN_CHARACTERS - 4 <= len(fits) <= MAX_TOKEN_CHARACTERS
    beyond = signer.sign(claims(), filler="x" * (room + 6))
    assert len(beyond) > MAX_TOKEN_CHARACTERS
    assert refusal(verifier, beyond) is TokenProblem.TOO_LARGE
    assert issuer.asked == []
    assert asyncio.run(verifier.verify(fits)).subject == "fan-1"
    assert refusal(verifier, "x" * 10_000_000) is TokenProblem.TOO_LARGE


# The keys


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_small_rsa_key_is_not_taken(make_verifier, make_signer, issuer, claims: Claims):
    small = make_signer(rsa.generate_private_key(65_537, 1_024), "RS256", "small")
    issuer.keys.append(small.jwk)
    assert refusal(make_verifier(), small.sign(claims())) is TokenProblem.UNKNOWN_KEY


@pytest.mark.parametrize(
    "more",
    [{"use": "enc"}, {"key_ops": ["sign"]}, {"key_ops": "verify "}, {"alg": "RS384"}, {"kty": "EC"}, {"kid": 7}],
    ids=str,
)
def test_a_key_for_something_else_is_not_taken(make_verifier, issuer, signer, claims: Claims, more):
    issuer.keys = [{**signer.jwk, **more}]
    assert refusal(make_verifier(), signer.sign(claims())) is TokenProblem.UNKNOWN_KEY


def test_a_key_published_with_its_private_part_is_not_taken(make_verifier, issuer, signer, claims: Claims):
    issuer.keys = [{**RSAAlgorithm.to_jwk(signer.private, as_dict=True), "kid": "key-1", "key_ops": ["verify"]}]
    assert refusal(make_verifier(), signer.sign(claims())) is TokenProblem.UNKNOWN_KEY


def test_a_key_on_another_curve_is_not_taken(make_verifier, make_signer, issuer, claims: Claims):
    odd = make_signer(ec.generate_private_key(ec.SECP256K1()), "ES256K", "odd")
    issuer.keys.append({**odd.jwk, "alg": "ES256"})
    assert refusal(make_verifier(), odd.sign(claims(), alg="ES256K")) is TokenProblem.WRONG_ALGORITHM
    token = forged({"alg": "ES256", "kid": "odd"}, claims(), b"x" * 64)
    assert refusal(make_verifier(), token) is TokenProblem.UNKNOWN_KEY


# Whatever else


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_token_changed_anywhere_is_refused(verifier, signer, claims, data):
    """A bit of luck cannot help: any change of any character, and only TokenError comes of it."""
    token = signer.sign(claims())
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.text(min_size=0, max_size=3).filter(lambda text: text != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    try:
        caller = asyncio.run(verifier.verify(changed))
    except TokenError:
        return
    # RFC 7515 knows no padding, but issuers send it and PyJWT takes it: the same bytes, the same claims.
    assert changed.replace("=", "") == token
    assert caller.subject == "fan-1"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    header=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
    | st.fixed_dictionaries(
        {"alg": st.sampled_from(["RS256", "none", 1])}, optional={"kid": st.text() | st.integers(), "typ": st.text()}
    ),
    body=st.binary(max_size=50),
)
def test_whatever_stands_in_a_token_only_a_refusal_comes_of_it(verifier, header, body):
    with pytest.raises(TokenError):
        asyncio.run(verifier.verify(forged(header, body, body)))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(["sub", "aud", "exp", "nbf", "iat", "iss", "client_id", "scope", "token_use", "memberId"]),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
        | st.lists(st.text() | st.integers(), max_size=2),
        max_size=3,
    )
)  # fmt: skip
def test_odd_claims_under_a_good_signature_are_a_caller_or_a_refusal(verifier, signer, claims, changes):
    token = signed(signer, {"alg": "RS256", "kid": "key-1"}, {**claims(), **changes})
    try:
        caller = asyncio.run(verifier.verify(token))
    except TokenError:
        return
    assert isinstance(caller, Identity)
    assert caller.subject == changes.get("sub", "fan-1")
    assert caller.subject.strip()


def test_errors_name_nothing_of_the_token(verifier, signer, claims: Claims, caplog):
    canary = "canary@example.com"
    for token in (
        signer.sign(claims(sub=canary, iss=canary)),
        signer.sign(claims(sub=canary), kid=canary),
        forged({"alg": canary}, {}),
    ):
        with caplog.at_level("DEBUG"), pytest.raises(TokenError) as refused:
            asyncio.run(verifier.verify(token))
        assert canary not in repr(refused.value) + str(refused.value) + caplog.text


def test_public_keys_in_pem_are_what_the_confusion_test_signs_with(signer):
    """Guards the guard: the test of HS256 uses the very bytes the issuer could publish."""
    pem = signer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert serialization.load_pem_public_key(pem).public_numbers() == signer.private.public_key().public_numbers()
