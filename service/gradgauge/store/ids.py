"""Prefixed identifiers that sort by their time of birth."""

import secrets
import time

# Crockford's base 32: no I, L, O, U, so that an id survives being read aloud.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
LONGEST = 40
# The project of a service without keys, where everything belongs to one tenant.
DEFAULT_PROJECT = "prj_default"


def new_id(prefix: str) -> str:
    """Return `prefix_` and 26 characters: 48 bits of milliseconds, then 80 random bits."""
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    digits = (_ALPHABET[number >> (5 * place) & 31] for place in reversed(range(_LENGTH)))
    return f"{prefix}_{''.join(digits)}"


def new_token() -> str:
    """Return an attempt's token: 128 random bits, unlike any token before it."""
    return secrets.token_hex(16)
