"""Makes tokens by hand, also invalid ones that no library would sign."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk

SECRET = "a secret that only the tests know, 32 or more"
IN_AN_HOUR = {"now": 3600}
PROVIDER_CLAIMS = {"sub": "idp|1", "iss": "https://idp.example", "aud": "gateway", "exp": IN_AN_HOUR}

Json = dict[str, Any]
Sign = Callable[[bytes], bytes]


def hs(secret: str | bytes = SECRET, digest: str = "sha256") -> Sign:
    key = secret.encode() if isinstance(secret, str) else secret
    return lambda signed: hmac.new(key, signed, getattr(hashlib, digest)).digest()


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(header: Json | bytes, claims: Any, sign: Sign) -> str:
    """Returns a compact JWS. A claim `{"now": n}` becomes the time in n seconds. Bytes are used as given."""
    if isinstance(claims, dict):
        claims = {name: _claim(value) for name, value in claims.items()}
    signed = ".".join(b64url(part if isinstance(part, bytes) else _json(part)) for part in (header, claims))
    return f"{signed}.{b64url(sign(signed.encode()))}"


def _claim(value: Any) -> Any:
    return time.time() + value["now"] if isinstance(value, dict) and set(value) == {"now"} else value


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class ProviderKey:
    """A key pair of an identity provider. Signs tokens, and has its public key as JWK and PEM."""

    def __init__(self, key_id: str, algorithm: str = "RS256", bits: int = 2048) -> None:
        self.id = key_id
        self.algorithm = algorithm
        if algorithm == "RS256":
            private: Any = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        else:
            private = ec.generate_private_key(ec.SECP256R1())
        self._key = jwk.construct(private, algorithm)
        self.sign: Sign = self._key.sign
        self.pem: bytes = self._key.public_key().to_pem()
        self.jwk: Json = {**self._key.public_key().to_dict(), "kid": key_id, "use": "sig"}

    def token(self, claims: Json | None = None, **header: Any) -> str:
        return self.token_signed(self.sign, claims, **header)

    def token_signed(self, sign: Sign, claims: Json | None = None, **header: Any) -> str:
        """Returns the same token with a signature by `sign`."""
        claims = {**PROVIDER_CLAIMS, **(claims or {})}
        return compact({"alg": self.algorithm, "kid": self.id, **header}, claims, sign)
