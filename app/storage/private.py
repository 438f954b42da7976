"""Pictures that only the gateway reads: the pictures of base64 answers, for replays.

They are kept in a folder, which replicas can share, or in a bucket, never in the public one.
"""

import io
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Protocol

import structlog

from app.contract.errors import UpstreamFailed, UpstreamUnavailable
from app.disk import to_thread
from app.logs import causes
from app.pictures.blob import Blob, Blobs
from app.pictures.checks import check
from app.pictures.picture import Picture, recognise
from app.pictures.pieces import PIECE_BYTES
from app.storage.gcs import Gcs

log = structlog.get_logger(__name__)

_STEM = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NAME = re.compile(r"([0-9a-f]{32})-([0-9]{1,4})\.(png|jpg|webp|gif)", re.ASCII)
_PART = ".part"
_MOST_SWEPT = 200
_CACHE_CONTROL = "private, no-store"
_PERMISSIONS = [f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list")]


class _Place(Protocol):
    """Where files are kept. Names and stems are valid."""

    async def keep(self, name: str, picture: Picture) -> None: ...

    async def load(self, stem: str, blobs: Blobs) -> dict[str, Blob]:
        """Returns the files whose names begin with the stem. If it raises, close `blobs`."""

    async def remove(self, stem: str) -> None: ...

    async def sweep(self, older_than_seconds: float) -> int: ...

    async def ready(self) -> None: ...


class PrivateStore:
    """Pictures named `{32 hex digits}-{index}.{ext}`; the digits are their stem.

    `where` is a folder or `gs://bucket/prefix`, as in PRIVATE_STORE. The bucket of `gcs` is not used. Each
    method but `ready` raises UpstreamUnavailable if it can be tried again later, UpstreamFailed if not, and
    ValueError for any other name or stem.
    """

    def __init__(self, where: str, gcs: Gcs) -> None:
        bucket, _, prefix = where.removeprefix("gs://").partition("/")
        in_bucket = where.startswith("gs://")
        self._place: _Place = _Bucket(gcs, bucket, prefix) if in_bucket else _Folder(Path(where))

    async def keep(self, name: str, picture: Picture, /) -> None:
        """Keep a picture, whole or not at all. Keeping a name again is success."""
        if not _NAME.fullmatch(name):
            raise ValueError("not the name of a private picture")
        await self._place.keep(name, picture)

    async def find(self, stem: str, blobs: Blobs, /) -> dict[str, Picture]:
        """Returns the kept pictures with this stem by name, as blobs of the given scope, in the order of
        their indexes. Raises NoRoom too.

        What a power cut has damaged is left out.
        """
        with blobs.another() as loading:
            loaded = await self._place.load(_valid(stem), loading)
            names = sorted((name for name in loaded if _NAME.fullmatch(name)), key=_index)
            pictures = await to_thread(_recognised, [(name, loaded[name]) for name in names])
            for picture in pictures.values():
                blobs.take(picture.blob)
            return pictures

    async def remove(self, stem: str) -> None:
        """Delete the pictures with this stem, if there are any."""
        await self._place.remove(_valid(stem))

    async def sweep(self, older_than_seconds: float) -> int:
        """Delete pictures that are older, and what killed processes have left half written.

        Returns the number that was deleted. One turn is bounded: it deletes at most 200 in a folder; in a
        bucket it looks at 200, and the next turn continues behind them.
        """
        return await self._place.sweep(older_than_seconds)

    async def ready(self) -> None:
        """Raises OSError and `contract.errors` if pictures cannot be kept, found and removed."""
        await self._place.ready()


def _valid(stem: str) -> str:
    if not _STEM.fullmatch(stem):
        raise ValueError("not the stem of private pictures")
    return stem


def _index(name: str) -> int:
    return int(name.partition("-")[2].partition(".")[0])


def _recognised(loaded: Iterable[tuple[str, Blob]]) -> dict[str, Picture]:
    pictures = {}
    for name, blob in loaded:
        try:
            picture = recognise(blob)
            check(picture)
            pictures[name] = picture
        except ValueError as exc:
            log.error("a private picture is damaged", name=name, cause=causes(exc))
    return pictures


# ── in a folder ──────────────────────────────────────────────────────────────────────────────────────────


class _Folder:
    """Spreads the files over 256 folders by the first two digits of their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, name: str, picture: Picture) -> None:
        with _unavailable():
            await to_thread(self._keep, name, picture.blob)

    def _keep(self, name: str, blob: Blob) -> None:
        """Copies the bytes: the spool overwrites its files, and with them a link's."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / name[:2] / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_name(f"{name}.{token_hex(8)}{_PART}")
        try:
            with open(part, "xb", buffering=0, opener=_for_the_owner) as file:
                for piece in blob.pieces():
                    _write(file, piece)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    async def load(self, stem: str, blobs: Blobs) -> dict[str, Blob]:
        with _unavailable():
            return await to_thread(self._load, stem, blobs)

    def _load(self, stem: str, blobs: Blobs) -> dict[str, Blob]:
        found = {}
        for path in self._paths(stem):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                continue  # removed meanwhile
            with file:
                found[path.name] = blob = blobs.new()
                while piece := file.read(PIECE_BYTES):
                    blob.write(piece)
                blob.seal()
        return found

    async def remove(self, stem: str) -> None:
        with _unavailable():
            await to_thread(self._remove, stem)

    def _remove(self, stem: str) -> None:
        for path in self._paths(stem):
            path.unlink(missing_ok=True)

    def _paths(self, stem: str) -> list[Path]:
        folder = self._folder / stem[:2]
        return [path for path in _files(folder) if path.name.startswith(stem) and _NAME.fullmatch(path.name)]

    async def sweep(self, older_than_seconds: float) -> int:
        with _unavailable():
            return await to_thread(self._sweep, time.time() - older_than_seconds)

    def _sweep(self, before: float) -> int:
        swept = 0
        for number in range(256):
            for path in _files(self._folder / f"{number:02x}"):
                ours = _NAME.fullmatch(path.name) or path.suffix == _PART
                if ours and _is_older(path, before):
                    path.unlink(missing_ok=True)
                    swept += 1
                if swept == _MOST_SWEPT:
                    return swept
        return swept

    async def ready(self) -> None:
        await to_thread(self._try)

    def _try(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
            file.write(b"?")


def _files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries]
    except FileNotFoundError:
        return []


def _is_older(path: Path, before: float) -> bool:
    try:
        return path.stat().st_mtime < before
    except FileNotFoundError:
        return False  # another process was faster


def _write(file: io.FileIO, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UpstreamUnavailable from exc


# ── in a bucket ──────────────────────────────────────────────────────────────────────────────────────────


class _Bucket:
    def __init__(self, gcs: Gcs, bucket: str, prefix: str) -> None:
        self._gcs = gcs
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/".lstrip("/")
        self._page: str | None = None

    async def keep(self, name: str, picture: Picture) -> None:
        await to_thread(picture.blob.crc32c)  # the upload asks for it; it may have to read the file
        await self._gcs.save(
            self._prefix + name, picture, bucket=self._bucket, again=True, cache_control=_CACHE_CONTROL
        )

    async def load(self, stem: str, blobs: Blobs) -> dict[str, Blob]:
        names = await self._gcs.names(self._bucket, self._prefix + stem)
        if not names:
            return {}
        found = await self._gcs.objects.download(self._bucket, names, blobs)
        return {name.removeprefix(self._prefix): blob for name, blob in found.items()}

    async def remove(self, stem: str) -> None:
        await self._gcs.objects.delete(self._bucket, self._prefix + stem)

    async def sweep(self, older_than_seconds: float) -> int:
        page, self._page = self._page, None  # after a failure the next turn begins at the first page
        swept, self._page = await self._gcs.objects.sweep(
            self._bucket, self._prefix, self._is_ours, older_than_seconds, page
        )
        return swept

    def _is_ours(self, name: str) -> bool:
        return _NAME.fullmatch(name.removeprefix(self._prefix)) is not None

    async def ready(self) -> None:
        held = await self._gcs.objects.held(self._bucket, _PERMISSIONS)
        if missing := sorted(set(_PERMISSIONS) - held):
            raise UpstreamFailed(f"{', '.join(missing)} not granted on {self._bucket}")
