"""What an API key looks like: `gg_<id>_<secret><crc32>`, and how one is made and taken apart.

The checksum tells a mistyped key from a wrong one without a look into the database, and lets
scanners of leaked secrets be sure. Kept is the SHA-256 of the whole key and nothing else of it.
"""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = 16
_SECRET = 52
_FORM = re.compile(rf"gg_([{_ALPHABET}]{{{_ID}}})_[{_ALPHABET}]{{{_SECRET}}}[0-9a-f]{{8}}")


@dataclass(frozen=True)
class NewKey:
    """A key that has just been made; its text is shown once."""

    id: str
    text: str
    sha256: str


def make() -> NewKey:
    """Return a key with 260 random bits of secret."""
    key_id = _random(_ID)
    body = f"gg_{key_id}_{_random(_SECRET)}"
    text = f"{body}{_checksum(body)}"
    return NewKey(key_id, text, digest(text))


def id_of(text: str) -> str | None:
    """Return the id in a key's text; None where it is no key."""
    found = _FORM.fullmatch(text)
    if found is None or _checksum(text[:-8]) != text[-8:]:
        return None
    return found[1]


def digest(text: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(text.encode()).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
