"""The codec against json.loads and base64.b64decode: any JSON, any spelling, cut anywhere."""

import base64
import json
import re

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from app.pictures.json_limits import JsonTooLarge, Limits, MalformedJson
from tests.pictures.reading import cut, read, some_blobs

SMALL = Limits(blob_from=16)
"""So that small examples have pictures in them."""


# ── any JSON ─────────────────────────────────────────────────────────────────────────────────────────────

Spelled = tuple[str, object]
"""The source of a JSON value, and what it is; bytes stand for a blob."""

plain_texts = st.text(st.characters(codec="utf-8"), max_size=60)
spaces = st.sampled_from(["", "", " ", "\n  ", "\t", "\r\n"])
cuts = st.lists(st.integers(0, 10_000), max_size=12)
NAMED = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
    "/": "\\/",
}


@st.composite
def escaped(draw: st.DrawFn, text: str, anything: str = "") -> str:
    """The source of a string between its quotes. Of characters that need no escape, some have one anyway.

    With `anything` only those of its characters have a choice.
    """
    source = ""
    for character in text:
        units = character.encode("utf-16-be").hex()
        unicode = "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
        if character < " " or character in '"\\':
            ways = [NAMED.get(character, unicode), unicode]
        else:
            ways = [
                character,
                character,
                NAMED.get(character, character),
                unicode,
                unicode.upper().replace("U", "u"),
            ]
        if anything and character >= " ":
            ways = ways if character in anything else [character]
        source += draw(st.sampled_from(ways))
    return source


@st.composite
def texts(draw: st.DrawFn) -> Spelled:
    """Something that is no base64: a character that cannot be in it stands at any place."""
    text = draw(plain_texts)
    if len(text) > 2:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(' !é\u2028😀\\"')) + text[place:]
    return f'"{draw(escaped(text))}"', text


@st.composite
def words(draw: st.DrawFn) -> Spelled:
    """Base64 up to a place, and then not."""
    text = base64.b64encode(draw(st.binary(max_size=90))).decode() + draw(
        st.sampled_from(["!", "=", "A", "\n "])
    )
    if len(text) % 4 == 1 or not text.endswith("A"):
        return f'"{draw(escaped(text, "/+="))}"', text
    return "null", None


@st.composite
def pictures(draw: st.DrawFn) -> Spelled:
    data = draw(st.binary(min_size=13, max_size=200))
    text = base64.b64encode(data).decode()
    if draw(st.booleans()):
        text = text.translate({ord("+"): "-", ord("/"): "_"})
    if draw(st.booleans()):
        text = text.rstrip("=")
    if width := draw(st.sampled_from([0, 0, 4, 7, 76])):
        end = draw(st.sampled_from(["\n", "\r\n"]))
        text = "".join(text[start : start + width] + end for start in range(0, len(text), width))
    head = draw(
        st.sampled_from(["", "", "data:image/png;base64,", "DATA:image/svg+xml;charset=utf-8;base64,"])
    )
    source = draw(escaped(head + text, "/+=-_"))
    source = re.sub(
        r"\\u000([ad])", lambda match: "\\n" if match[1] == "a" else "\\r", source, flags=re.IGNORECASE
    )
    return f'"{source}"', data


def scalars() -> st.SearchStrategy[Spelled]:
    numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    return (st.none() | st.booleans() | numbers).map(lambda value: (json.dumps(value), value))


@st.composite
def lists(draw: st.DrawFn, inner: st.SearchStrategy[Spelled]) -> Spelled:
    items = draw(st.lists(inner, max_size=5))
    between = [f"{draw(spaces)}{source}{draw(spaces)}" for source, _ in items]
    return f"[{','.join(between)}]", [value for _, value in items]


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Spelled]) -> Spelled:
    """Names may stand twice: the last one counts."""
    items = draw(st.lists(st.tuples(texts(), inner), max_size=5))
    source = ",".join(f"{draw(spaces)}{name}{draw(spaces)}:{value}" for (name, _), (value, _) in items)
    return f"{{{source}}}", {name: value for (_, name), (_, value) in items}


anything = st.recursive(
    scalars() | texts() | words() | pictures() | pictures(),
    lambda inner: lists(inner) | objects(inner),
    max_leaves=12,
)


@settings(deadline=None, max_examples=600)
@given(anything, cuts, st.sampled_from([0, 60, 10_000]))
def test_any_json_cut_anywhere(spelled: Spelled, places: list[int], memory: int) -> None:
    source, expected = spelled
    with some_blobs(memory) as blobs:
        assert read(cut(source.encode(), places), blobs, SMALL) == expected
    assert same(json.loads(source), expected)


def same(parsed: object, expected: object) -> bool:
    """Whether the parsed JSON is this value, with base64 for bytes."""
    if isinstance(expected, bytes):
        assert isinstance(parsed, str)
        return decoded(parsed) == expected
    if isinstance(expected, dict) and isinstance(parsed, dict):
        return parsed.keys() == expected.keys() and all(same(parsed[key], expected[key]) for key in parsed)
    if isinstance(expected, list) and isinstance(parsed, list):
        return len(parsed) == len(expected) and all(map(same, parsed, expected))
    return parsed == expected


def decoded(text: str) -> bytes:
    text = re.sub(r"[\r\n]", "", text)
    text = re.sub(r"^data:[^,]*;base64,", "", text, flags=re.IGNORECASE)
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


@settings(deadline=None, max_examples=50)
@given(anything)
def test_any_json_byte_by_byte(spelled: Spelled) -> None:
    source, expected = spelled
    with some_blobs() as blobs:
        assert read((bytes([byte]) for byte in source.encode()), blobs, SMALL) == expected


# ── no JSON ──────────────────────────────────────────────────────────────────────────────────────────────


def whole(source: bytes) -> object:
    """What app/api/body.py accepts."""
    try:
        return from_json(source, allow_inf_nan=False, cache_strings=False)
    except ValueError:
        return orjson.loads(source.decode("utf-8", "replace").removeprefix("\ufeff"))


edits = st.lists(
    st.tuples(
        st.integers(0, 10_000), st.integers(0, 3), st.sampled_from([b"", *(bytes([n]) for n in range(256))])
    ),
    max_size=3,
)


@settings(deadline=None, max_examples=400)
@given(anything, edits, cuts)
@example(('"\\u\\n003dAAAAAAAAAAAAAAA"', None), [], [])
@example(('"\\u\\r\\n003dAAAAAAAAAAAAAAA"', None), [], [])
@example(('"\\u\\n002bAAAAAAAAAAAAAAAAAAAAAA"', None), [], [25])
@example(('"\\\\n/AAAAAAAAAAAAAAAA"', None), [], [])
@example(('"\\\\u003dAAAAAAAAAAAAAAAA"', None), [], [5])
@example(("{}\\", None), [], [])
@example(('{"AAAAAAAAAAAAAAAAAAAA":1}', None), [], [])
def test_what_a_whole_parse_refuses_is_refused(
    spelled: Spelled, changes: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    source = spelled[0].encode()
    for place, removed, added in changes:
        place %= len(source) + 1
        source = source[:place] + added + source[place + removed :]
    with some_blobs() as blobs:
        try:
            expected = whole(source)
        except orjson.JSONDecodeError:
            with pytest.raises(MalformedJson):
                read(cut(source, places), blobs, SMALL)
            return
        try:
            value = read(cut(source, places), blobs, SMALL)
        except JsonTooLarge as exc:
            assert "a name" in str(exc)  # noqa: PT017 - it need not be raised
            return
    assert same(expected, value)
