"""Tokens of an issuer that the test makes itself: what opens, and every way that must not."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import contextmanager

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gradgauge.api import issuer as module
from gradgauge.api.issuer import Issuer
from gradgauge.errors import InvalidInput, Unavailable
from gradgauge.settings import Settings
from tests.api.keyed import bearer, key
from tests.api.problem import problem
from tests.jobs.far import answering

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
WEAK = rsa.generate_private_key(65537, 1024)
STRANGER = rsa.generate_private_key(65537, 2048)


def jwk(key, kid, **more):
    kind = jwt.algorithms.RSAAlgorithm if hasattr(key, "decrypt") else jwt.algorithms.ECAlgorithm
    return kind.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"} | more


def pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


KEYS = [
    jwk(RSA, "rsa", alg="RS256"),
    jwk(EC, "ec"),
    jwk(P384, "p384"),
    jwk(WEAK, "weak"),
    jwk(STRANGER, "enc", use="enc"),
    {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(b"k" * 32).decode()},
    "no key",
]


@contextmanager
def issuing(keys=KEYS, *, at=0, **changes):
    """A local issuer; its URL, what it was asked, and its answers, which may be changed."""
    answers = {}
    with answering(answers, at=at) as (port, asked):
        url = f"http://127.0.0.1:{port}/realm"
        found = {"issuer": url, "jwks_uri": f"{url}/keys"} | changes
        answers["/realm/.well-known/openid-configuration"] = 200, {}, json.dumps(found).encode()
        answers["/realm/keys"] = 200, {}, json.dumps({"keys": keys}).encode()
        yield url, asked, answers


def of(url, **settings):
    told = {"oidc_project_claim": "project", "oidc_skew_s": 5} | settings
    return Issuer(Settings(oidc_issuer=url, require_keys=True, **told))


def claims(url, **changes):
    now = int(time.time())
    usual = {
        "iss": url,
        "aud": "gradgauge",
        "sub": "alice",
        "iat": now,
        "exp": now + 60,
        "project": "vision",
        "scope": "openid gradgauge:write",
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def signed(told, key=RSA, kid="rsa", algorithm="RS256", **head):
    headers = ({"kid": kid} if kid else {}) | head
    return jwt.encode(told, key, algorithm=algorithm, headers=headers)


def judged(each, token):
    return asyncio.run(each.claims(token))


@pytest.mark.parametrize(("key", "kid", "algorithm"), [(RSA, "rsa", "RS256"), (EC, "ec", "ES256")])
def test_a_token_of_the_issuer_opens_what_it_says(key, kid, algorithm):
    with issuing() as (url, _, _):
        found = judged(of(url), signed(claims(url), key, kid, algorithm))
    assert (found.subject, found.project, found.scope) == ("alice", "vision", "write")
    assert found.key_id == judged_key_id("alice")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": None},
        {"aud": ["another"]},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": None},
        {"exp": 1},
        {"exp": int(time.time()) - 6},
        {"exp": "soon"},
        {"exp": 10**400},
        {"nbf": int(time.time()) + 86_400},
        {"iat": int(time.time()) + 86_400},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 300},
        {"project": None},
        {"project": ""},
        {"project": ["vision"]},
    ],
)
def test_a_claim_that_will_not_do_opens_nothing(changes):
    with issuing() as (url, _, _):
        told = claims(url, **changes)
        if isinstance(told.get("sub", ""), str):
            token = signed(told)
        else:  # which the library refuses to sign
            token = raw({"alg": "RS256", "kid": "rsa"}, told, rs256)
        assert judged(of(url), token) is None


def test_clocks_may_differ_by_the_skew():
    with issuing() as (url, _, _):
        late = signed(claims(url, exp=int(time.time()) - 3))
        early = signed(claims(url, nbf=int(time.time()) + 3, iat=int(time.time()) + 3))
        assert judged(of(url), late).subject == "alice"
        assert judged(of(url), early).subject == "alice"


def raw(head, told, sign):
    def packed(part):
        return base64.urlsafe_b64encode(part).rstrip(b"=")

    body = packed(json.dumps(head).encode()) + b"." + packed(json.dumps(told).encode())
    return (body + b"." + packed(sign(body))).decode()


def rs256(body):
    return jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(body, RSA)


def hs256_by_public_key(body):
    return hmac.digest(pem(RSA), body, "sha256")


ATTACKS = {
    "alg none": ({"alg": "none", "kid": "rsa"}, lambda _: b""),
    "alg None": ({"alg": "None", "kid": "rsa"}, lambda _: b""),
    "no alg": ({"kid": "rsa"}, lambda _: b""),
    "alg a list": ({"alg": ["RS256"], "kid": "rsa"}, rs256),
    "HS256 by the public key": ({"alg": "HS256", "kid": "rsa"}, hs256_by_public_key),
    "HS256 by the key set's own secret": (
        {"alg": "HS256", "kid": "oct"},
        lambda body: hmac.digest(b"k" * 32, body, "sha256"),
    ),
    "HS256 by nothing": ({"alg": "HS256"}, lambda body: hmac.digest(b"", body, "sha256")),
    "another's signature": ({"alg": "RS256", "kid": "rsa"}, lambda _: b"x" * 256),
    "no signature": ({"alg": "RS256", "kid": "rsa"}, lambda _: b""),
    "a key of another kind": ({"alg": "ES256", "kid": "rsa"}, rs256),
    "a critical header": ({"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}, rs256),
    "a key that is no text": ({"alg": "RS256", "kid": {"a": 1}}, lambda _: b"x"),
    "nested beyond measure": ({"alg": "RS256", "kid": "rsa"}, None),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_forged_token_opens_nothing(name):
    head, sign = ATTACKS[name]
    with issuing() as (url, _, _):
        if sign is None:
            deep = base64.urlsafe_b64encode(b"[" * 4000).decode().rstrip("=")
            token = f"{deep}.e30.x"
        else:
            token = raw(head, claims(url), sign)
        assert judged(of(url), token) is None


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"),
    [
        (STRANGER, "rsa", "RS256"),
        (STRANGER, "enc", "RS256"),
        (STRANGER, "unknown", "RS256"),
        (WEAK, "weak", "RS256"),
        (P384, "p384", "ES384"),
        (RSA, "rsa", "RS512"),
        (RSA, "rsa", "PS256"),
    ],
)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_key_that_is_not_the_issuers_or_not_taken_opens_nothing(key, kid, algorithm):
    with issuing() as (url, _, _):
        assert judged(of(url), signed(claims(url), key, kid, algorithm)) is None


def test_keys_that_a_token_brings_or_names_are_not_believed():
    head = {"jwk": jwk(STRANGER, "mine"), "jku": "https://evil.example/keys"}
    with issuing() as (url, asked, _):
        assert judged(of(url), signed(claims(url), STRANGER, None, **head)) is None
    assert len(asked) == 2


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "..", "gg_x", "é", "x" * 9000])
def test_what_is_no_token_opens_nothing(token):
    with issuing() as (url, asked, _):
        assert judged(of(url), token) is None
    assert asked == []


def test_a_flood_of_unknown_keys_asks_the_issuer_once():
    async def flood(each, url):
        tokens = [signed(claims(url), STRANGER, f"kid-{number}") for number in range(20)]
        return await asyncio.gather(*(each.claims(token) for token in tokens))

    with issuing() as (url, asked, _):
        each = of(url)
        assert judged(each, signed(claims(url))) is not None
        assert set(asyncio.run(flood(each, url))) == {None}
        assert len(asked) == 2  # the discovery and the keys, once


def test_a_new_key_is_found_once_the_issuer_may_be_asked_again(monkeypatch):
    with issuing() as (url, asked, answers):
        each = of(url)
        assert judged(each, signed(claims(url))) is not None
        new = signed(claims(url), STRANGER, "new")
        answers["/realm/keys"] = 200, {}, json.dumps({"keys": [jwk(STRANGER, "new")]}).encode()
        assert judged(each, new) is None
        monkeypatch.setattr(module, "_AGAIN_S", 0.0)
        assert judged(each, new).subject == "alice"
        assert judged(each, signed(claims(url, sub="bob"))) is None  # its key is withdrawn
        assert len(asked) >= 4


def test_an_issuer_that_is_away_is_a_503_until_its_keys_are_known(monkeypatch):
    with issuing() as (url, _, answers):
        kept = dict(answers)
        answers.clear()
        each = of(url)
        with pytest.raises(Unavailable) as told:
            judged(each, signed(claims(url)))
        assert told.value.code == "issuer_unreachable"
        monkeypatch.setattr(module, "_AGAIN_S", 0.0)
        answers.update(kept)
        assert judged(each, signed(claims(url))) is not None
        answers.clear()
        monkeypatch.setattr(module, "_FRESH_S", 0.0)
        assert judged(each, signed(claims(url, sub="carol"))).subject == "carol"


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": None},
        {"jwks_uri": "http://169.254.169.254/keys"},
        {"jwks_uri": "file:///etc/passwd"},
    ],
)
def test_an_issuer_that_is_another_is_not_believed(changes):
    with issuing(**changes) as (url, _, _), pytest.raises(Unavailable):
        judged(of(url), signed(claims(url)))


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("gradgauge:read gradgauge:admin", "admin"),
        (["gradgauge:read"], "read"),
        ("openid", "none"),
        ("read", "none"),
        (None, "none"),
        ({"gradgauge:admin": 1}, "none"),
        ("xgradgauge:admin", "none"),
    ],
)
def test_the_scope_is_the_widest_the_claim_names(scope, found):
    with issuing() as (url, _, _):
        assert judged(of(url), signed(claims(url, scope=scope))).scope == found


def test_a_claim_may_lie_deeper_and_the_project_be_the_default():
    roles = {"realm_access": {"roles": ["ml-write"]}}
    with issuing() as (url, _, _):
        settings = {"oidc_scope_claim": "realm_access.roles", "oidc_scope_prefix": "ml-"}
        each = of(url, oidc_project_claim=None, **settings)
        found = judged(each, signed(claims(url, **roles)))
    assert (found.project, found.scope) == (None, "write")


@pytest.mark.parametrize("url", ["http://issuer.example", "x", "https://a@b/"])
def test_an_issuer_is_asked_by_https(url):
    with pytest.raises(InvalidInput):
        of(url)


def test_tokens_are_for_services_that_ask_for_keys():
    with pytest.raises(ValueError, match="GRADGAUGE_REQUIRE_KEYS"):
        Settings(oidc_issuer="https://issuer.example")


def test_a_token_opens_its_project_alone_and_as_far_as_its_scope(keyed):
    _, held = key(keyed, "vision", scope="read")
    client, audit = keyed.client, key(keyed, "vision", "auditor", scope="admin")[1]
    with issuing(at=keyed.issuer) as (url, _, _):
        alice = bearer(signed(claims(url)))
        made = client.post("/v1/models?name=a.onnx", content=b"by a token", headers=alice)
        assert made.status_code == 201, made.text
        path = f"/v1/models/{made.json()['id']}"
        assert client.get(path, headers=bearer(held)).status_code == 200
        reader = bearer(signed(claims(url, sub="bob", scope="gradgauge:read")))
        assert client.get(path, headers=reader).status_code == 200
        problem(client.delete(path, headers=reader), 403, "scope_missing")
        nobody = bearer(signed(claims(url, scope="openid")))
        problem(client.get(path, headers=nobody), 403, "scope_missing")
        problem(client.get("/v1/audit", headers=alice), 403, "scope_missing")
        key(keyed, "elsewhere")
        other = bearer(signed(claims(url, project="elsewhere")))
        problem(client.get(path, headers=other), 404, "model_not_found")
        absent = bearer(signed(claims(url, project="no such project")))
        problem(client.get(path, headers=absent), 401, "key_required")
        problem(client.get(path, headers=bearer(signed(claims(url, exp=1)))), 401, "key_required")
    entries = client.get("/v1/audit", headers=bearer(audit)).json()["items"]
    written = next(each for each in entries if each["path"] == "/v1/models")
    assert (written["principal"], written["key_id"]) == ("alice", judged_key_id("alice"))


def judged_key_id(subject):
    return "oidc_" + hashlib.sha256(subject.encode()).hexdigest()[:32]
