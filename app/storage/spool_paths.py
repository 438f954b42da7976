"""The paths of the spool's files, and what they say.

Below a process's folder come the object's bucket and folder, percent-encoded and cut into names short enough
for a disk, then the picture's CRC32C and the file's name. Files of the first edition begin with a label.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from pydantic import BaseModel

from app.pictures.picture import EXTENSIONS

PREFIX = "spool-"
"""What the name of a process's folder begins with."""
MAX_LABEL_BYTES = 16 * 1024
_NAME_BYTES = 200
_FIRST_EDITION = ".picture"


class Label(BaseModel):
    """The first line of a file of the first edition; the picture's bytes follow."""

    name: str
    bucket: str
    bytes: int


class SpoolObject(NamedTuple):
    """The object that a file will be."""

    bucket: str
    name: str
    crc32c: bytes


def relative(bucket: str, name: str, crc32c: bytes) -> Path:
    """Returns the path of an object's file below a process's folder."""
    folder, slash, filename = name.rpartition("/")
    text = quote(f"{bucket}/{folder}{slash}", safe="")
    return Path(
        *(text[at : at + _NAME_BYTES] for at in range(0, len(text), _NAME_BYTES)),
        f"{crc32c.hex()}-{quote(filename, '')}",
    )


def object_of(path: Path) -> SpoolObject | None:
    """Returns the object of a path below a process's folder, None if `relative` does not make the path."""
    *parts, filename = path.parts
    digits, _, filename = filename.partition("-")
    bucket, _, folder = unquote("".join(parts)).partition("/")
    try:
        found = SpoolObject(bucket, folder + unquote(filename), bytes.fromhex(digits))
    except ValueError:
        return None
    known = path.suffix.removeprefix(".") in EXTENSIONS.values() and len(found.crc32c) == 4
    return found if known and relative(*found) == path else None


def label_of(path: Path) -> Label | None:
    """Returns the label of a whole file of the first edition, None for any other."""
    if path.suffix != _FIRST_EDITION:
        return None
    try:
        with path.open("rb") as file:
            label = Label.model_validate_json(file.readline(MAX_LABEL_BYTES))
            whole = os.fstat(file.fileno()).st_size - file.tell() == label.bytes
    except (OSError, ValueError):
        return None
    return label if whole else None


def files(folder: Path) -> Iterator[Path]:
    """Yields all files in a folder and in its folders."""
    for path, _, names in os.walk(folder):
        yield from (Path(path, name) for name in names)


def beginning_with(spool: Path, bucket: str, stem: str) -> Iterator[Path]:
    """Yields the files of all processes whose objects' names begin with the stem. Raises OSError.

    Lists one folder of each process: objects in folders below the stem's own are not found.
    """
    start = relative(bucket, stem, b"")  # its last part is "-" and the beginning of the files' names
    with os.scandir(spool) as entries:
        folders = [Path(entry.path) for entry in entries if entry.name.startswith(PREFIX)]
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / start.parent) as entries:
            names = [entry.name for entry in entries]
            matching = (name for name in names if name.lstrip("0123456789abcdef").startswith(start.name))
            yield from (folder / start.parent / name for name in matching)
