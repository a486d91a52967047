"""A JWK Set (RFC 7517) as keys by id and algorithm: each key is bound to the algorithms that its own type allows."""

from typing import Any, Final, NamedTuple

import jwt

from .strict_json import read_object

MAX_KEYS: Final = 100
"""Keys of a set beyond these are not looked at."""

_RSA_BITS: Final = range(2_048, 8_193)  # RFC 7518, 3.3; and no key so large that verifying becomes an attack
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_TYPE: Final[dict[tuple[str, str | None], tuple[str, ...]]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""(kty, crv) to the algorithms it may verify (RFC 7518, RFC 8037). ``oct``, a shared secret, is not among them."""

_PUBLIC: Final = ("kty", "crv", "n", "e", "x", "y")
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


class KeyId(NamedTuple):
    """What a token says of its key, or a key of itself: compared, never used to find anything."""

    kid: str | None
    algorithm: str


class SigningKey(NamedTuple):
    """A public key bound to one algorithm.

    Attributes:
        key: PyJWT's key.
        material: the public members, to tell whether a key is still the same.
    """

    key: jwt.PyJWK
    material: dict[str, Any]


def read_jwks(document: bytes, algorithms: tuple[str, ...]) -> dict[KeyId, SigningKey]:
    """The usable keys of a JWK Set, by (kid, algorithm).

    Left out are keys of other algorithms, not for signatures (``use``, ``key_ops``), shared secrets (``oct``), RSA keys
    outside 2,048 to 8,192 bits, those that cannot be read, and those published with their private part. Of two keys
    with the same id and algorithm the first stays.

    Args:
        document: JSON in UTF-8.
        algorithms: those that are taken.

    Raises:
        ValueError: it is no JWK Set.
    """
    keys = read_object(document).get("keys")
    if not isinstance(keys, list):
        raise ValueError("no JWK Set")
    found: dict[KeyId, SigningKey] = {}
    for jwk in keys[:MAX_KEYS]:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(jwk, dict):
            for algorithm in _algorithms_of(jwk, algorithms):  # pyright: ignore[reportUnknownArgumentType]
                key = _key_of(jwk, algorithm)  # pyright: ignore[reportUnknownArgumentType]
                if key is not None:
                    found.setdefault(KeyId(jwk.get("kid"), algorithm), key)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return found


def _algorithms_of(jwk: dict[str, Any], taken: tuple[str, ...]) -> list[str]:
    """The algorithms a key may verify: its type's, its own ``alg`` where it has one, and those taken."""
    kid, alg = jwk.get("kid"), jwk.get("alg")
    key_ops: Any = jwk.get("key_ops")
    unfit = (
        not (kid is None or isinstance(kid, str))
        or jwk.get("use", "sig") != "sig"
        or not (key_ops is None or (isinstance(key_ops, list) and "verify" in key_ops))
        or any(name in jwk for name in _PRIVATE)
    )
    if unfit:
        return []
    kind = (jwk.get("kty"), jwk.get("crv"))
    return [
        name
        for known, allowed in _BY_TYPE.items()
        if kind == known
        for name in allowed
        if name in taken and alg in (None, name)
    ]


def _key_of(jwk: dict[str, Any], algorithm: str) -> SigningKey | None:
    material = {name: jwk[name] for name in _PUBLIC if name in jwk}
    try:
        key = jwt.PyJWK(material, algorithm)
        bits = key.key.key_size if algorithm in _RSA else None
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return SigningKey(key, material) if bits is None or bits in _RSA_BITS else None
