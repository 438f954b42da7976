"""The codec's named oddities, its limits, hostile texts, and writing."""

import base64
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from app.pictures.blob import Blob, Blobs
from app.pictures.in_json import JsonReader, JsonWriter
from app.pictures.json_limits import JsonTooLarge, Limits, MalformedJson
from app.pictures.room import NoRoom
from app.pictures.work_folder import WorkFolder
from tests.pictures.reading import assert_empty, cut, read, some_blobs

PICTURE = bytes(range(256)) * 20 + b"\xfb\xff"  # its base64 has every character, and ends in "=="
TEXT = base64.b64encode(PICTURE).decode()
LINES = [TEXT[start : start + 76] for start in range(0, len(TEXT), 76)]

SPELLINGS = {
    "plain": TEXT,
    "not padded": TEXT.rstrip("="),
    "URL-safe": base64.urlsafe_b64encode(PICTURE).decode(),
    "URL-safe, not padded": base64.urlsafe_b64encode(PICTURE).decode().rstrip("="),
    "URL-safe from the middle on": TEXT[:3000] + TEXT[3000:].replace("+", "-").replace("/", "_"),
    "a data: URI": f"data:image/png;base64,{TEXT}",
    "a data: URI with parameters": f"data:image/svg+xml;charset=utf-8;base64,{TEXT}",
    "a data: URI in capitals": f"DATA:IMAGE/PNG;BASE64,{TEXT}",
    "slashes escaped, as by PHP": f"data:image/png;base64,{TEXT}".replace("/", "\\/"),
    "= and + escaped, as by Gson": TEXT.replace("=", "\\u003d").replace("+", "\\u002b"),
    "escapes in capitals": TEXT.replace("=", "\\u003D").replace("+", "\\u002B").replace("/", "\\u002F"),
    "URL-safe, escaped": TEXT.replace("+", "\\u002d").replace("/", "\\u005F"),
    "lines": "\\n".join(LINES),
    "lines, as in MIME": "".join(f"{line}\\r\\n" for line in LINES),
}
TEXTS = {
    "a prompt": "a lighthouse, " * 400,
    "words without spaces": "Leuchtturmwärterhäuschen" * 200,
    "another script": "灯台" * 3000,
    "escapes only": '\\"' * 3000,
    "backslashes only": "\\\\" * 3000,
    "line breaks only": "\\n" * 3000,
    "emoji as escapes": "\\ud83d\\ude00" * 600,
    "base64, then not": TEXT + "!",
    "base64 with an escaped letter": TEXT[:5000] + "\\u0041" + TEXT[5001:],
    "base64 with spaces": TEXT.replace("A", " "),
    "base64 cut in a group": TEXT[:5001],
    "base64 padded in the middle": TEXT + TEXT,
    "base64 padded too much": TEXT + "=",
    "base64 padded too little": TEXT[:-1],
    "two pictures": f"{TEXT},{TEXT}",
    "an escaped backslash before n and a slash": f"\\\\n/{TEXT}",
    "an escaped backslash before rn": f"\\\\rn{TEXT}",
    "an escaped backslash before a slash": f"\\\\/{TEXT}",
    "an escaped backslash and an escaped slash": f"\\\\\\/{TEXT}",
    "an escaped backslash before u003d": f"{TEXT}\\\\u003d",
    "a data: URI that is no base64": "data:text/plain," + "a" * 5000,
    "a data: URI of nothing": "data:image/png;base64," + "\\n" * 3000,
}


@pytest.mark.parametrize("memory", [0, 10**6], ids=["on disk", "in memory"])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 4096, 10**6])
@pytest.mark.parametrize("source", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_a_picture(source: str, step: int, memory: int) -> None:
    text = f'{{"predictions": [{{"mimeType": "image/png", "bytes": "{source}"}}]}}'.encode()
    pieces = (text[start : start + step] for start in range(0, len(text), step))
    with some_blobs(memory) as blobs:
        value = read(pieces, blobs)
    assert value == {"predictions": [{"mimeType": "image/png", "bytes": PICTURE}]}


@pytest.mark.parametrize("step", [1, 2, 3, 5, 4096, 10**6])
@pytest.mark.parametrize("source", TEXTS.values(), ids=TEXTS)
def test_long_texts_stay_texts(blobs: Blobs, source: str, step: int) -> None:
    text = f'["{source}", "{source}"]'.encode()
    pieces = (text[start : start + step] for start in range(0, len(text), step))
    assert read(pieces, blobs) == json.loads(text)


@pytest.mark.parametrize("length", [4092, 4096, 4097, 4098, 4100])
def test_a_string_becomes_a_blob_when_it_is_longer_than_the_limit(blobs: Blobs, length: int) -> None:
    text = "A" * length
    expected = text if length <= 4096 or length % 4 == 1 else base64.b64decode(text + "=" * (-length % 4))
    for places in ([], [3], [4096, 4097, 4098, 4099]):
        assert read(cut(f'["{text}"]'.encode(), places), blobs) == [expected]
        assert read(cut(f'"{text}"'.encode(), places), blobs) == expected


ODD = {
    "a byte order mark": b'\xef\xbb\xbf{"a": "%s"}',
    "broken UTF-8": b'{"a": "%s", "b": "\xff\xc3"}',
    "deep": b"[" * 300 + b'"%s"' + b"]" * 300,
    "a name twice": b'{"a": "%s", "a": "%s", "b": "%s", "b": 1}',
    "in capitals of another order": b'{"mimeType":1,"x":{"y":["%s",null,"%s"]},"prompt":"a"}',
    "text around": b'   [ "%s"\n\t]  ',
}


@pytest.mark.parametrize("source", ODD.values(), ids=ODD)
def test_odd_json(blobs: Blobs, source: bytes) -> None:
    expected: object = read([source.replace(b"%s", b"a picture")], blobs)
    value = read(cut(source.replace(b"%s", TEXT.encode()), [1, 2, 3, 50, 5000, 7000]), blobs)
    assert flat(value) == flat(expected).replace("a picture", repr(PICTURE)[1:].strip("'"))


def test_a_picture_as_deep_as_it_goes(blobs: Blobs) -> None:
    with JsonReader(blobs.new) as reader:
        reader.feed(b"[" * 1023 + f'"{TEXT}"'.encode() + b"]" * 1023)
        value = reader.finish()
    while isinstance(value, list):
        (value,) = value
    assert [value] == reader.blobs
    reader.blobs[0].close()


def flat(value: object) -> str:
    """The value as a text, without recursion."""
    text = ""
    left = [value]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            text += f"{{{list(node)}}}"
            left += node.values()
        elif isinstance(node, list):
            text += f"[{len(node)}]"
            left += node
        else:
            text += repr(node).removeprefix("b")
    return text


MALFORMED = {
    "nothing": b"",
    "an open string": b'{"a": "',
    "an open picture": b'{"a": "%s',
    "an open picture, escaped at the end": b'{"a": "%s\\',
    "an open escape": b'{"a": "%s\\u00"}',
    "a picture and no more": b'{"a": "%s"',
    "two values": b'{"a": "%s"}{}',
    "a backslash outside": b'{"a": "%s"}\\',
    "an escaped quote outside": b'{\\"a": "%s"}',
    "a line break in a picture": b'{"a": "%s\n"}',
    "an escape that is none": b'{"a": "%s\\x"}',
    "NaN": b'{"a": "%s", "b": NaN}',
    "endless nesting": b"[" * 100_000,
    "a lone surrogate": b'{"a": "%s", "b": "\\ud800"}',
}


@pytest.mark.parametrize("source", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_refused(blobs: Blobs, folder: WorkFolder, source: bytes) -> None:
    for places in ([], [1, 5, 6, 4000, *range(len(TEXT) - 2, len(TEXT) + 12)]):
        with pytest.raises(MalformedJson, match=r"^Malformed JSON: .*, at position [0-9]+$") as refused:
            read(cut(source.replace(b"%s", TEXT.encode()), places), blobs)
        assert refused.value.__context__ is None, "orjson's error holds the text"
        assert_empty(folder)


def test_the_position_of_a_mistake_counts_the_pictures(blobs: Blobs) -> None:
    source = f'["{TEXT}", "é", "{TEXT}", wrong]'
    with pytest.raises(MalformedJson, match=rf"at position {source.index('wrong')}$"):
        read([source.encode()], blobs)


# ── limits and hostile texts ─────────────────────────────────────────────────────────────────────────────

TOO_LARGE = {
    "the whole": (Limits(total=1000), b"[%s]" % (b" " * 999), "longer than 1000 bytes"),
    "pictures": (Limits(blobs=2), f'["{TEXT}", "{TEXT}", "{TEXT}"]'.encode(), "more than 2 pictures"),
    "small strings": (Limits(), b'["a"' + b', "a"' * 600_000, "more than 100000 values"),
    "strings without commas": (Limits(), b'""' * 3_000_000, "more than 4194304 bytes beside"),
    "spaces": (Limits(), b"[" + b" " * 5_000_000, "more than 4194304 bytes beside"),
    "nesting": (Limits(), b"[" * 5_000_000, "more than 4194304 bytes beside"),
    "texts": (Limits(), b'["' + b'", "'.join([b"a b" * 100_000] * 20), "more than 4194304 bytes beside"),
    "a name": (Limits(), b'[{"%s": 1}]' % TEXT.encode(), "a name .* longer than 4096 bytes"),
    "a name of two": (Limits(), b'{"a": "%s", "%s": 1}' % (TEXT.encode(), TEXT.encode()), "a name"),
}


@pytest.mark.parametrize(("limits", "source", "message"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_is_too_large(
    blobs: Blobs, folder: WorkFolder, limits: Limits, source: bytes, message: str
) -> None:
    for step in (65_536, 10**9):
        with pytest.raises(JsonTooLarge, match=message):
            read((source[start : start + step] for start in range(0, len(source), step)), blobs, limits)
        assert_empty(folder)


@pytest.mark.parametrize(
    ("limits", "source", "value"),
    [
        pytest.param(Limits(total=1000), b"[%s]" % (b" " * 998), [], id="the whole"),
        pytest.param(Limits(skeleton=1000), b"[%s]" % (b" " * 998), [], id="all but the pictures"),
        pytest.param(Limits(commas=2), b"[1, 2, 3]", [1, 2, 3], id="values"),
        pytest.param(Limits(blobs=2), f'["{TEXT}", "{TEXT}"]'.encode(), [PICTURE] * 2, id="pictures"),
    ],
)
def test_each_limit_can_be_reached(blobs: Blobs, limits: Limits, source: bytes, value: object) -> None:
    assert read([source], blobs, limits) == value


LONG_TEXTS = {
    "words": ("a b" * 200_000, "a b" * 131_072),
    "escapes": ('\\"' * 200_000, '"' * 196_608),
    "a cut escape": ("\\u00e4" * 70_000, "ä" * 65_536),
    "a cut pair of surrogates": ("a" + "\\ud83d\\ude00" * 40_000, "a" + "😀" * 32_767),
    "a cut character": ("é" * 200_000, "é" * 196_608),
    "much base64, then none": ("AAAA" * 100_000 + "!!!!", "AAAA" * 98_304),
    "base64 that ends in a group": ("AAAA" * 100_000 + "A", "AAAA" * 98_304),
}


@pytest.mark.parametrize(("source", "beginning"), LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_a_long_text_is_shortened(blobs: Blobs, folder: WorkFolder, source: str, beginning: str) -> None:
    """Its field refuses it. The ellipsis is no base64, so nothing takes the beginning for a picture."""
    text = f'{{"a": "{source}", "b": "whole"}}'.encode()
    for step in (1000, 65_536, 10**9):
        found = read((text[start : start + step] for start in range(0, len(text), step)), blobs)
        assert found == {"a": f"{beginning}…", "b": "whole"}
        assert_empty(folder)


def test_limits_that_leave_a_gap_are_refused() -> None:
    with pytest.raises(ValueError, match="blob_from is above text"):
        Limits(blob_from=101, text=100)


def test_an_endless_picture_is_held_on_disk_until_there_is_no_room(tmp_path: Path) -> None:
    with WorkFolder(tmp_path, memory_bytes=10**6, max_bytes=20 * 10**6) as folder, folder.blobs() as blobs:
        piece = b"AAAA" * 16_384
        tracemalloc.start()
        with JsonReader(blobs.new) as reader, pytest.raises(NoRoom, match="20000000 bytes"):  # noqa: PT012
            reader.feed(b'{"a": "')
            while True:
                reader.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * 10**6
        assert_empty(folder)


def test_a_placeholder_cannot_be_forged(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with JsonReader(blobs.new) as first, JsonReader(blobs.new) as second:
        for reader in (first, second):
            reader.feed(json.dumps([TEXT]).encode())
        assert first._mark != second._mark
        assert len(first._mark) == 32
    guesses = [f"{'0' * 32}{number}" for number in range(3)]
    assert read([json.dumps([*guesses, TEXT]).encode()], blobs) == [*guesses, PICTURE]


@pytest.mark.parametrize("fail", [1, 2, 5])
def test_nothing_is_left_when_a_reader_is_abandoned(blobs: Blobs, folder: WorkFolder, fail: int) -> None:
    pieces = list(cut(f'["{TEXT}", "{TEXT}", "{TEXT}"]'.encode(), [5000, 6000, 7000, 8000, 15_000, 17_000]))
    with pytest.raises(ConnectionResetError), JsonReader(blobs.new) as reader:  # noqa: PT012
        for piece in pieces[:fail]:
            reader.feed(piece)
        raise ConnectionResetError
    assert_empty(folder)


def test_the_callers_of_finish_own_the_blobs(blobs: Blobs, folder: WorkFolder) -> None:
    with JsonReader(blobs.new) as reader:
        reader.feed(f'{{"a": "{TEXT}", "a": "{TEXT}", "b": "{TEXT}"}}'.encode())
        value = reader.finish()
    assert isinstance(value, dict)
    assert reader.blobs == [value["a"], value["b"]]
    assert folder.disk_used == 2 * len(PICTURE)
    for blob in reader.blobs:
        assert b"".join(blob.pieces()) == PICTURE
        blob.close()


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────


class Prediction(BaseModel):
    mime_type: str = Field(alias="mimeType")
    safety: str | None = None
    data: str | None = None


@pytest.mark.parametrize("length", [0, 1, 2, 3, 100, 196_607, 196_608, 196_609, 500_000])
def test_a_value_is_written_in_pieces(blobs: Blobs, length: int) -> None:
    data = (PICTURE * 100)[:length]
    text = base64.b64encode(data).decode()
    with blobs.of(data) as blob, blobs.of(b"another") as another:
        value = {"a": [blob, 1.5, None, {"é": another}], "b": blob, "c": Prediction(mimeType="image/png")}
        body = JsonWriter(value)
        written = b"".join(body)
        assert body.length == len(written)
        assert max(map(len, body)) <= 344_064
        assert hashlib.sha256(b"".join(body)).digest() == hashlib.sha256(written).digest()
    assert json.loads(written) == {
        "a": [text, 1.5, None, {"é": base64.b64encode(b"another").decode()}],
        "b": text,
        "c": {"mimeType": "image/png"},
    }


def test_integers_beyond_64_bits_are_written(blobs: Blobs) -> None:
    """orjson refuses them, here after it has met the blob."""
    with blobs.of(b"some bytes") as blob:
        body = JsonWriter({"blob": blob, "number": 2**64})
        written = b"".join(body)
    assert (json.loads(written), body.length) == (
        {"blob": base64.b64encode(b"some bytes").decode(), "number": 2**64},
        len(written),
    )


def test_what_cannot_be_written(blobs: Blobs) -> None:
    with pytest.raises(TypeError):
        JsonWriter({"a": b"bytes"})
    with blobs.new() as blob, pytest.raises(ValueError, match="not sealed"):
        b"".join(JsonWriter([blob]))


TEXTS_WITH_A_SPACE = st.text(st.characters(codec="utf-8")).map(lambda text: f"{text} ")  # no base64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS_WITH_A_SPACE | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS_WITH_A_SPACE, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=1000)
@given(JSON, st.lists(st.integers(0, 10_000), max_size=10))
def test_what_is_written_is_read(value: object, places: list[int]) -> None:
    with some_blobs(100) as blobs:
        made: list[Blob] = []

        def blob_of(data: bytes) -> Blob:
            made.append(blobs.of(data + bytes(13)))
            return made[-1]

        body = JsonWriter(mapped(value, blob_of))
        written = b"".join(body)
        for blob in made:
            blob.close()
        assert len(written) == body.length
        expected = mapped(value, lambda data: data + bytes(13))
        assert read(cut(written, places), blobs, Limits(blob_from=16)) == expected


def mapped(value: object, of_bytes: Callable[[bytes], object]) -> object:
    if isinstance(value, bytes):
        return of_bytes(value)
    if isinstance(value, dict):
        return {key: mapped(inner, of_bytes) for key, inner in value.items()}
    return [mapped(inner, of_bytes) for inner in value] if isinstance(value, list) else value
