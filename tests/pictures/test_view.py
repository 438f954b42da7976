"""A file is read in windows as if it were in memory, and everything that steps through it agrees."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pictures import parts, view
from app.pictures.blob import Blob
from app.pictures.checks import check
from app.pictures.metadata import bare_jpeg, bare_png
from app.pictures.parts import has_too_many_parts
from app.pictures.picture import NotAPicture, PictureTooLarge, recognise
from app.pictures.view import View
from app.pictures.work_folder import WorkFolder
from tests.pictures.samples import content
from tests.pictures.test_checks import WHOLE
from tests.pictures.test_parts import soups
from tools.rig.hostile_files import HOSTILE

WINDOWS = st.sampled_from([2, 7, 100, 1000])


@contextmanager
def both(data: bytes, window: int) -> Iterator[tuple[Blob, Blob]]:
    """The data in memory, in pieces of so many bytes, and in a file that is read in such windows."""
    with (
        TemporaryDirectory() as one,
        TemporaryDirectory() as other,
        WorkFolder(Path(one)) as memory,
        WorkFolder(Path(other), memory_bytes=0) as disk,
        memory.blobs() as in_memory,
        disk.blobs() as on_disk,
        mock.patch.object(view, "WINDOW_BYTES", window),
    ):
        pieces = in_memory.new()
        for start in range(0, len(data), window):
            pieces.write(data[start : start + window])
        pieces.seal()
        yield pieces, on_disk.of(data)


@settings(deadline=None)
@given(
    st.binary(max_size=300),
    WINDOWS,
    st.lists(st.tuples(st.integers(0, 310), st.integers(0, 310)), min_size=1, max_size=20),
)
def test_any_place_can_be_read(data: bytes, window: int, ranges: list[tuple[int, int]]) -> None:
    with both(data, window) as blobs:
        for one in map(View, blobs):
            for start, size in ranges:
                end = start + size
                assert one.cut(start, end) == data[start:end]
                assert b"".join(one.pieces(start, end)) == data[start:end]
                if start < len(data):
                    assert one[start] == data[start]
                    assert one.has(data[start:end], start)
                    assert one.has((b"ab", data[start : start + 2]), start)
                    assert one.has((b"ab", b"?"), start) == data.startswith((b"ab", b"?"), start)
                    found, first = one.window(start, size)
                    assert found[start - first :][:size] == data[start:end]
                else:
                    with pytest.raises(IndexError):
                        one[start]


@pytest.mark.parametrize("window", [2, 1000, view.WINDOW_BYTES])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_counted_in_windows(name: str, window: int) -> None:
    make, fewest = HOSTILE[name]
    with both(make(fewest), window) as blobs:
        assert [has_too_many_parts(blob) for blob in blobs] == [True, True]
    with both(make(fewest // 10), window) as blobs:
        assert [has_too_many_parts(blob) for blob in blobs] == [False, False]


@settings(deadline=None)
@given(soups(), WINDOWS)
def test_parts_are_counted_alike(data: bytes, window: int) -> None:
    with both(data, window) as blobs:
        in_memory, on_disk = ([*parts._parts(View(blob))] for blob in blobs)
    assert in_memory == on_disk


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(WHOLE)), WINDOWS, st.data())
def test_files_are_checked_and_cut_alike(name: str, window: int, draw: st.DataObject) -> None:
    data = bytearray(WHOLE[name])
    for _ in range(draw.draw(st.integers(0, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    del data[draw.draw(st.just(len(data)) | st.integers(0, len(data))) :]
    with both(bytes(data), window) as blobs:
        in_memory, on_disk = map(seen, blobs)
    assert in_memory == on_disk


def seen(blob: Blob) -> tuple[str, bytes, bytes]:
    try:
        check(recognise(blob))
        verdict = "whole"
    except (NotAPicture, PictureTooLarge) as exc:
        verdict = repr(exc)
    return verdict, content(bare_png(blob)), content(bare_jpeg(blob))
