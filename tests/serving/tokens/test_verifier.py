"""Who a good token's caller is, and for how long a token is remembered."""

import ast
import asyncio
import gc
import inspect

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.domain.access import READ_ANY_SCOPE, CallerKind
from fan_identity.io.errors import UsageError
from fan_identity.serving.settings import load_serving_settings
from fan_identity.serving.tokens import verifier as module
from fan_identity.serving.tokens.claims import MAX_ID_BYTES, identity_of
from fan_identity.serving.tokens.problems import TokenError, TokenProblem
from fan_identity.serving.tokens.rules import ALGORITHMS, TokenRules
from fan_identity.serving.tokens.verifier import CACHED_SECONDS, LEEWAY_SECONDS, TokenVerifier

RULES = TokenRules("https://issuer.example", ("web-client", "partner", "https://api.example"), "jwks.json")


def verify(verifier, token, *source_ip):
    return asyncio.run(verifier.verify(token, source_ip))


# Who a caller is


def test_a_users_token(verifier, signer, claims):
    caller = verify(verifier, signer.sign(claims(memberId="m-1", name="Ann", scope="fanscore:read")), "10.0.0.1")
    assert (caller.kind, caller.user_id, caller.member_id) == (CallerKind.USER, "fan-1", "m-1")
    assert caller.source_ip == ("10.0.0.1",)
    assert caller.claims["name"] == "Ann"
    assert not caller.scopes and not caller.may_read("fan-2"), "what a fan's token says of scopes opens nothing"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_that_can_be_set(make_verifier, issuer, signers, claims, algorithm):
    issuer.keys = [signer.jwk for signer in signers.values()]
    verifier = make_verifier(algorithms=(algorithm,))
    for name, signer in signers.items():
        if name == algorithm:
            assert verify(verifier, signer.sign(claims())).subject == "fan-1"
        else:
            with pytest.raises(TokenError) as refused:
                verify(verifier, signer.sign(claims()))
            assert refused.value.code is TokenProblem.WRONG_ALGORITHM


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_that_does_not_say_its_algorithm_is_bound_by_its_type(make_verifier, issuer, signers, claims, algorithm):
    issuer.keys = [{**signers[algorithm].jwk, "alg": None}]
    del issuer.keys[0]["alg"]
    verifier = make_verifier(algorithms=ALGORITHMS)
    assert verify(verifier, signers[algorithm].sign(claims())).subject == "fan-1"


def test_a_key_without_kid_serves_tokens_without(make_verifier, issuer, signer, claims):
    signer.kid = None
    issuer.keys = [signer.jwk]
    verifier = make_verifier()
    assert verify(verifier, signer.sign(claims())).subject == "fan-1"
    with pytest.raises(TokenError):
        verify(verifier, signer.sign(claims(), kid="key-1"))


def test_claims_that_name_user_and_member_can_be_set(make_verifier, signer, claims):
    verifier = make_verifier(user_claim="custom:globalUserId", member_claim="custom:memberId")
    token = signer.sign(claims(**{"custom:globalUserId": "fan-9", "custom:memberId": "m-9"}))
    caller = verify(verifier, token)
    assert (caller.user_id, caller.member_id) == ("fan-9", "m-9")
    with pytest.raises(TokenError) as refused:
        verify(verifier, signer.sign(claims()))
    assert refused.value.code is TokenProblem.INVALID_SUBJECT


def test_cognitos_access_token_of_a_user(verifier, signer, claims):
    cognito = claims(aud=None, client_id="web-client", token_use="access", scope="openid", username="ann")
    assert verify(verifier, signer.sign(cognito)).user_id == "fan-1"
    with pytest.raises(TokenError) as refused:
        verify(verifier, signer.sign({**cognito, "client_id": "other"}))
    assert refused.value.code is TokenProblem.WRONG_AUDIENCE


def test_client_id_stands_in_for_aud_in_cognitos_access_tokens_only(verifier, signer, claims):
    for more in ({}, {"token_use": "id"}, {"token_use": "access", "aud": "other"}, {"token_use": "access", "aud": []}):
        with pytest.raises(TokenError) as refused:
            verify(verifier, signer.sign({**claims(aud=None, client_id="web-client"), **more}))
        assert refused.value.code is TokenProblem.WRONG_AUDIENCE


def test_a_services_token(make_verifier, signer, claims):
    verifier = make_verifier(audiences=("web-client", "partner"))
    token = signer.sign(
        claims(aud=None, sub="partner", client_id="partner", token_use="access", scope="fanscore:read x")
    )
    caller = verify(verifier, token)
    assert (caller.kind, caller.subject, caller.user_id) == (CallerKind.SERVICE, "partner", None)
    assert caller.scopes == {"fanscore:read", "x"}
    assert caller.reads_any_fan


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        (None, set()),
        ("", set()),
        ("  a   b ", {"a", "b"}),
        ("a\tb", {"a\tb"}),
        ("https://api.example/fanscore:read", {"fanscore:read"}),
        ("https://evil.example/fanscore:read", {"https://evil.example/fanscore:read"}),
        ("/fanscore:read", {"/fanscore:read"}),
        ("FANSCORE:READ", {"FANSCORE:READ"}),
    ],
)
def test_scopes_of_a_service(claims, scope, scopes):
    caller = identity_of(claims(aud="partner", sub="partner", client_id="partner", scope=scope), RULES)
    assert caller.kind is CallerKind.SERVICE
    assert caller.scopes == scopes
    assert caller.reads_any_fan is (READ_ANY_SCOPE in scopes)


def test_a_service_that_acts_for_a_named_user_is_the_user(claims):
    rules = TokenRules(RULES.issuer, RULES.audiences, RULES.jwks, user_claim="globalUserId")
    service = claims(sub="partner", client_id="partner", scope="fanscore:read")
    assert identity_of(service, rules).kind is CallerKind.SERVICE
    caller = identity_of({**service, "globalUserId": "fan-1"}, rules)
    assert (caller.kind, caller.reads_any_fan) == (CallerKind.USER, False)


@pytest.mark.parametrize("wrong", ["", " ", "\t\n", None, 7, True, ["fan-1"], "x" * (MAX_ID_BYTES + 1), "é" * 513])
def test_a_subject_that_is_none(claims, wrong):
    with pytest.raises(TokenError) as refused:
        identity_of({**claims(), "sub": wrong}, RULES)
    assert refused.value.code is TokenProblem.INVALID_SUBJECT


@pytest.mark.parametrize("wrong", ["", " ", 7, ["m"], "x" * (MAX_ID_BYTES + 1)])
def test_a_member_that_is_none(claims, wrong):
    with pytest.raises(TokenError) as refused:
        identity_of(claims(memberId=wrong), RULES)
    assert refused.value.code is TokenProblem.INVALID_MEMBER


@given(user=st.text(min_size=1, max_size=300), member=st.text(min_size=1, max_size=300))
def test_ids_keep_their_exact_text(user, member):
    """NFC or NFD, line breaks, NUL, #, : and the rest: ids are data."""
    claims = {"aud": "web-client", "sub": user, "memberId": member}
    try:
        caller = identity_of(claims, RULES)
    except TokenError:
        assert not user.strip() or not member.strip() or max(len(user.encode()), len(member.encode())) > MAX_ID_BYTES
    else:
        assert (caller.subject, caller.member_id) == (user, member)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(user=st.text(min_size=1, max_size=50).filter(str.strip))
def test_ids_keep_their_exact_text_on_the_way_through_a_token(verifier, signer, claims, user):
    assert verify(verifier, signer.sign(claims(sub=user))).subject == user


# How long a token is remembered


def test_a_token_is_verified_once(verifier, issuer, signer, claims):
    token = signer.sign(claims())
    assert verifier.cached(token) is None
    caller = verify(verifier, token)
    assert verifier.cached(token) is caller
    assert verify(verifier, token) is caller


def test_remembered_for_five_minutes_at_most(verifier, signer, clock, claims):
    token = signer.sign(claims())
    verify(verifier, token)
    clock.ahead += CACHED_SECONDS - 1
    assert verifier.cached(token) is not None
    clock.ahead += 1
    assert verifier.cached(token) is None
    assert verify(verifier, token).subject == "fan-1"


def test_remembered_until_it_expires(verifier, signer, clock, claims):
    token = signer.sign(claims(exp=int(clock()) + 100))
    verify(verifier, token)
    clock.ahead += 98
    assert verifier.cached(token) is not None
    clock.ahead += 2
    assert verifier.cached(token) is None


def test_no_more_tokens_are_remembered_than_stated_the_oldest_go_first(make_verifier, signer, claims):
    verifier = make_verifier(cached_tokens=3)
    tokens = [signer.sign(claims(jti=str(number))) for number in range(5)]
    for token in tokens[:3]:
        verify(verifier, token)
    assert verifier.cached(tokens[0]) is not None  # used, so not the oldest any more
    for token in tokens[3:]:
        verify(verifier, token)
    assert [verifier.cached(token) is not None for token in tokens] == [True, False, False, True, True]


def test_another_address_is_no_others(verifier, signer, claims):
    token = signer.sign(claims())
    assert verify(verifier, token, "10.0.0.1").source_ip == ("10.0.0.1",)
    assert verify(verifier, token, "10.0.0.2").source_ip == ("10.0.0.2",)
    assert verify(verifier, token).source_ip == ()


def test_no_token_stays_in_memory(verifier, signer, claims):
    token = signer.sign(claims())
    verify(verifier, token)
    assert verifier.cached(token) is not None
    kept = vars(verifier)["_verified"]
    gc.collect()
    assert all(isinstance(key, bytes) and len(key) == 32 for key in kept)
    assert token not in repr(kept)


def test_waiting_is_no_part_of_looking_up_what_is_remembered():
    """``cached`` is called for every request: it is no coroutine and awaits, fetches, verifies nothing."""
    tree = ast.parse(inspect.getsource(TokenVerifier.cached).strip())
    called = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not inspect.iscoroutinefunction(TokenVerifier.cached)
    assert called == {"get", "_clock", "pop", "move_to_end"}


def test_leeway_is_30_seconds_at_most():
    assert LEEWAY_SECONDS <= 30
    assert module.MAX_TOKEN_CHARACTERS == 8 * 1024


# Settings


def test_settings(monkeypatch):
    for name, text in {"ISSUER": "https://i.example/", "AUDIENCE": "a, b", "ALGORITHMS": "PS256,EdDSA"}.items():
        monkeypatch.setenv(f"FAN_IDENTITY_TOKEN_{name}", text)
    rules = TokenRules.of(load_serving_settings())
    assert rules == TokenRules(
        "https://i.example/", ("a", "b"), "https://i.example/.well-known/jwks.json", ("PS256", "EdDSA")
    )
    TokenVerifier.of(load_serving_settings())


@pytest.mark.parametrize(("missing", "setting"), [("ISSUER", "token_issuer"), ("AUDIENCE", "token_audience")])
@pytest.mark.parametrize("setting_text", [None, ""])
def test_a_missing_setting_is_named(monkeypatch, missing, setting, setting_text):
    names = {"ISSUER": "https://i.example", "AUDIENCE": "a", missing: setting_text}
    environment = {f"FAN_IDENTITY_TOKEN_{name}": text for name, text in names.items() if text is not None}
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    for read in (lambda: TokenVerifier.of(load_serving_settings()), lambda: TokenRules.from_environment(environment)):
        with pytest.raises(UsageError, match=f"setting {setting}: .*FAN_IDENTITY_TOKEN_{missing}"):
            read()


@pytest.mark.parametrize("algorithms", ["none", "HS256", "RS256,HS256", "rs256", "", ",", "ES256K"])
def test_algorithms_that_cannot_be_set(monkeypatch, algorithms):
    environment = {
        "FAN_IDENTITY_TOKEN_ISSUER": "https://i.example",
        "FAN_IDENTITY_TOKEN_AUDIENCE": "a",
        "FAN_IDENTITY_TOKEN_ALGORITHMS": algorithms,
    }
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    for read in (load_serving_settings, lambda: TokenRules.from_environment(environment)):
        with pytest.raises(UsageError, match="token_algorithms"):
            read()


SETTINGS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "ISSUER": SETTINGS | st.just("https://i.example"),
            "AUDIENCE": SETTINGS | st.just("a"),
            "JWKS": SETTINGS,
            "ALGORITHMS": st.lists(st.sampled_from([*ALGORITHMS, "HS256", " ", ""]), max_size=3).map(", ".join),
            "USER_CLAIM": SETTINGS,
            "MEMBER_CLAIM": SETTINGS,
        },
    ),
    lower=st.booleans(),
)
def test_the_lambdas_way_of_reading_settings_is_the_servers(values, lower):
    environment = {f"FAN_IDENTITY_TOKEN_{name}": text for name, text in values.items()}
    if lower:
        environment = {name.lower(): text for name, text in environment.items()}

    def outcome(read):
        try:
            return read()
        except UsageError as error:
            return str(error).partition(":")[0]

    with pytest.MonkeyPatch.context() as patch:
        for name, text in environment.items():
            patch.setenv(name, text)
        by_server = outcome(lambda: TokenRules.of(load_serving_settings()))
    assert outcome(lambda: TokenRules.from_environment(environment)) == by_server
