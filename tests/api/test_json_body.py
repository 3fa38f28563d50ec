"""The strict JSON reader against RFC 8259 and what Python's own reader lets pass."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradgauge.api.json_body import MOST_DEPTH, read_json
from gradgauge.api.problems import NotReadable

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans())
def test_what_is_json_is_read_as_it_was_written(value, escaped):
    assert read_json(json.dumps(value, ensure_ascii=escaped).encode()) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Expecting value"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b"1e999", "out of range"),
        (b"1" * 41, "out of range"),
        (b'{"a": 1, "b": 2, "a": 1}', "'a' is given twice"),
        (b'{"x": {"a": 1, "\\u0061": 2}}', "'a' is given twice"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\uDC00": 1}', "surrogate"),
        (b'["\\ude00\\ud83d"]', "surrogate"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"{'a': 1}", "double quotes"),
        (b"[1,]", "line 1"),
        (b"[1] x", "Extra data"),
        (b"[" * (MOST_DEPTH + 1), "deep"),
        (b'{"a":' * (MOST_DEPTH + 1), "deep"),
        (b"[" * 1_000_000, "deep"),
    ],
)
def test_what_two_readers_might_take_for_different_things_is_refused(text, said):
    with pytest.raises(NotReadable) as refused:
        read_json(text)
    assert refused.value.code == "invalid_json"
    assert said in refused.value.message


def test_pairs_of_surrogates_and_brackets_in_strings_are_fine():
    assert read_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    text = json.dumps("[{" * 100 + '"\\' * 50 + "]" * 3)
    assert read_json(text.encode()) == json.loads(text)
    deep = b"[" * MOST_DEPTH + b"]" * MOST_DEPTH
    assert read_json(deep) == json.loads(deep)
    wide = b"[" + b"[]," * 1000 + b"[]]"
    assert read_json(wide) == json.loads(wide)


def test_what_is_refused_is_not_echoed():
    with pytest.raises(NotReadable) as refused:
        read_json(b'{"' + b"k" * 10_000 + b'": 1, "' + b"k" * 10_000 + b'": 2}')
    assert len(refused.value.message) < 200
