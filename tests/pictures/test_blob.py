import base64
import gc
import hashlib
import subprocess
import sys
import tracemalloc
from itertools import cycle
from pathlib import Path

import google_crc32c
import pytest
from PIL import Image

from app.pictures.blob import Blob, Blobs
from app.pictures.room import NoRoom
from app.pictures.work_folder import WorkFolder
from tests.pictures.reading import assert_empty
from tests.pictures.samples import encoded

LENGTHS = [0, 1, 2, 3, 99, 100, 101, 192 * 1024, 192 * 1024 + 1, 256 * 1024, 600_000]


def some(length: int) -> bytes:
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def written(blobs: Blobs, data: bytes, step: int = 1000, **digests: bool) -> Blob:
    blob = blobs.new(**digests)
    for start in range(0, len(data), step):
        blob.write(data[start : start + step])
    blob.seal()
    return blob


@pytest.mark.parametrize("at_once", [True, False], ids=["digests while written", "digests on demand"])
@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_written_is_read(blobs: Blobs, folder: WorkFolder, length: int, at_once: bool) -> None:
    data = some(length)
    with written(blobs, data, sha256=at_once, crc32c=at_once) as blob:
        assert blob.in_memory == (length <= 100)
        assert (blob.length, blob.head(10)) == (length, data[:10])
        assert blob.sha256() == hashlib.sha256(data).digest()
        assert blob.crc32c() == google_crc32c.value(data).to_bytes(4, "big")
        for _ in range(2):
            assert b"".join(blob.pieces()) == data
            assert b"".join(blob.base64_pieces()) == base64.b64encode(data)
        assert blob.base64_length == len(base64.b64encode(data))
        assert all(len(piece) <= 336 * 1024 for piece in (*blob.pieces(), *blob.base64_pieces()))
        with blob.open() as file:
            assert file.read(5) == data[:5]
            file.seek(0)
            assert file.read() == data
        assert blob.path().read_bytes() == data
        assert not blob.in_memory
        assert (folder.memory_used, folder.disk_used) == (0, length)
        assert blob.head(10) == data[:10]


def test_what_is_made_of_a_picture_on_disk_goes_to_disk(blobs: Blobs) -> None:
    small, large = written(blobs, some(10)), written(blobs, some(200))
    made = [blob.sibling() for blob in (small, large)]
    for blob in made:
        blob.write(b"1")
        blob.seal()
    assert [blob.in_memory for blob in made] == [True, False]
    assert [blob.scope for blob in made] == [blobs, blobs]
    blobs.close()


def test_tiny_pieces_take_little_more_memory_than_their_bytes(tmp_path: Path) -> None:
    """A caller may send a body in packets of one byte."""
    with WorkFolder(tmp_path) as folder, folder.blobs() as blobs:
        tracemalloc.start()
        try:
            blob = written(blobs, some(500_000), step=2)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert blob.in_memory
        assert held < 1_200_000  # the data itself is among it
        assert b"".join(blob.pieces()) == some(500_000)


def test_a_large_piece_is_not_copied_when_a_small_one_follows(tmp_path: Path) -> None:
    large = some(10_000)
    with WorkFolder(tmp_path) as folder, folder.blobs() as blobs, blobs.new() as blob:
        blob.write(large)
        blob.write(b"ab")
        blob.seal()
        found = blob.piece_at(0)
        assert found
        assert found[0] is large


def test_a_blob_that_moves_to_the_spare_room_frees_the_full_one(tmp_path: Path) -> None:
    data = some(1600)
    with (
        WorkFolder(tmp_path, blob_memory_bytes=0, max_bytes=1000) as full,
        WorkFolder(tmp_path, blob_memory_bytes=0) as other,
        other.blobs() as spare,
        Blobs(full, spare=spare) as blobs,
    ):
        blob = written(blobs, data, step=800)
        assert b"".join(blob.pieces()) == data
        assert (full.disk_used, other.disk_used) == (0, 1600)
        assert list(full.path.glob("*.part")) == []


def test_only_the_owner_reads_the_files(blobs: Blobs, folder: WorkFolder) -> None:
    with written(blobs, some(200)) as blob:
        assert blob.path().stat().st_mode & 0o777 == 0o600
        assert folder.path.stat().st_mode & 0o777 == 0o700


def test_a_blob_is_written_then_sealed_then_closed(blobs: Blobs) -> None:
    for length in (50, 200):
        with blobs.new() as blob:
            blob.write(some(length))
            for read in (blob.open, blob.path, lambda: list(blob.pieces()), blob.sha256):
                with pytest.raises(ValueError, match="not sealed"):
                    read()
            blob.seal()
            blob.seal()
            with pytest.raises(ValueError, match="sealed or closed"):
                blob.write(b"?")
        blob.close()
        with pytest.raises(ValueError, match="closed"):
            blob.open()
        with pytest.raises(ValueError, match="closed"):
            blob.path()


def test_a_blob_does_not_show_its_bytes(blobs: Blobs) -> None:
    with written(blobs, b"secret") as blob:
        assert repr(blob) == "<Blob of 6 bytes, in memory>"
        blob.path()
        assert repr(blob) == "<Blob of 6 bytes, on disk>"
    assert repr(blob) == "<Blob of 6 bytes, closed>"


def test_memory_is_shared_by_all_blobs(tmp_path: Path) -> None:
    with WorkFolder(tmp_path, memory_bytes=1_000_000) as folder:
        with folder.blobs() as blobs, folder.blobs() as others:
            made = [written(scope, some(400_000)) for scope in (blobs, others, blobs)]
            assert [blob.in_memory for blob in made] == [True, True, False]
            made[0].close()
            assert written(others, some(400_000)).in_memory
        assert_empty(folder)


def test_many_requests_leave_less_memory_for_blobs(tmp_path: Path) -> None:
    def fits() -> bool:
        with folder.blobs() as blobs:
            return written(blobs, some(200_000)).in_memory

    with WorkFolder(tmp_path, memory_bytes=400_000) as folder:
        assert fits()
        scopes = [folder.blobs() for _ in range(9)]
        assert not fits()
        for scope in scopes:
            scope.close()
            scope.close()  # counts once
        assert not fits(), "Python gives back slowly what requests held"
        for _ in range(40):
            folder.blobs().close()
        assert fits()


def test_a_file_is_read_in_pieces_of_the_size_that_is_wanted(blobs: Blobs) -> None:
    sizes = cycle([300, 30])
    with written(blobs, some(1000)) as blob:
        assert not blob.in_memory
        pieces = list(blob.base64_pieces(lambda: next(sizes)))
    assert max(map(len, pieces)) <= 400
    assert b"".join(pieces) == base64.b64encode(some(1000))


def test_files_are_bounded(tmp_path: Path) -> None:
    with WorkFolder(tmp_path, memory_bytes=0, max_bytes=1000) as folder, folder.blobs() as blobs:
        with written(blobs, some(600)), blobs.new() as second:
            second.write(some(400))
            with pytest.raises(NoRoom, match="1000 bytes"):
                second.write(b"?")
        with written(blobs, some(1000)):
            pass


def test_one_owner_holds_at_most_half_of_the_files(tmp_path: Path) -> None:
    with WorkFolder(tmp_path, memory_bytes=0, max_bytes=1000) as folder:
        with folder.blobs("ann") as anns, folder.blobs("ann") as more, folder.blobs("bob") as bobs:
            written(anns, some(400))
            blob = more.new()
            with pytest.raises(NoRoom, match="of one user would hold more than 500 bytes"):
                blob.write(some(101))
            blob.close()
            written(bobs, some(500))
            written(more.another(), some(100)).close()
        with folder.blobs("ann") as anns:
            written(anns, some(500))
            with pytest.raises(NoRoom, match="of one user"):
                anns.check()
            with folder.blobs("bob") as bobs:
                bobs.check()
        assert_empty(folder)


def test_a_check_asks_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pictures.work_folder._CHECK_SECONDS", 0)
    with WorkFolder(tmp_path) as folder, folder.blobs() as blobs:
        blobs.check()
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
        monkeypatch.setattr("app.pictures.work_folder.MAX_PICTURE_BYTES", 10**18)
        with pytest.raises(NoRoom, match="are free"):
            blobs.check()
        (folder.path / ".lock").unlink()
        folder.path.rmdir()
        with pytest.raises(NoRoom, match="No such file"):
            blobs.check()


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    with WorkFolder(tmp_path, memory_bytes=0) as folder, folder.blobs() as blobs:
        (folder.path / ".lock").unlink()
        folder.path.rmdir()
        with blobs.new() as blob, pytest.raises(NoRoom, match="No such file"):
            blob.write(b"?")
        assert folder.disk_used == 0


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from app.pictures.room import NoRoom
from app.pictures.work_folder import WorkFolder

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
with WorkFolder(Path(sys.argv[1]), memory_bytes=0) as folder, folder.blobs() as blobs:
    for step in (100_000, 1000):
        with blobs.new() as blob:
            try:
                for _ in range(0, 100_000, step):
                    blob.write(bytes(step))
                blob.seal()
            except NoRoom as exc:
                print(exc)
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
        assert folder.disk_used == 0
"""


def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    told = ended.stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in told] == ["File too large"] * 2
    assert all(line.startswith(str(tmp_path)) for line in told)
    assert ended.stderr == ""


def test_a_picture_may_be_moved_away(blobs: Blobs, tmp_path: Path) -> None:
    with written(blobs, some(200)) as blob:
        blob.path().rename(tmp_path / "kept.png")
    assert (tmp_path / "kept.png").read_bytes() == some(200)


def test_a_renamed_file_stays(blobs: Blobs, tmp_path: Path) -> None:
    blob = written(blobs, some(200))
    blob.rename(tmp_path / "kept.png")
    assert b"".join(blob.pieces()) == blob.head(200) == some(200)
    blob.close()
    assert (tmp_path / "kept.png").read_bytes() == some(200)
    with blobs.new() as unsealed, pytest.raises(ValueError, match="not sealed"):
        unsealed.rename(tmp_path / "never.png")


def test_a_file_that_was_there_stays(blobs: Blobs, tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (300, 200)), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    with blobs.existing(tmp_path / "a.png") as blob:
        assert (blob.length, blob.head(8), b"".join(blob.pieces())) == (len(data), data[:8], data)
        assert blob.crc32c() == google_crc32c.value(data).to_bytes(4, "big")
        assert (blob.png.is_png, blob.png.sound) == (True, len(blob.png.found))
    assert (tmp_path / "a.png").read_bytes() == data


# ── scopes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_scope_deletes_all_that_is_left_in_it(folder: WorkFolder) -> None:
    with folder.blobs() as blobs:
        left = [blobs.of(some(50)), blobs.of(some(200)), blobs.new(), blobs.new()]
        left[3].write(some(200))
    assert_empty(folder)
    for blob in left:
        with pytest.raises(ValueError, match="closed"):
            blob.open()


def test_a_closed_scope_keeps_nothing(folder: WorkFolder) -> None:
    blobs = folder.blobs()
    blobs.close()
    with pytest.raises(ValueError, match="closed"):
        blobs.of(some(200))
    assert_empty(folder)


def test_a_blob_moves_to_another_scope(folder: WorkFolder) -> None:
    with folder.blobs() as short, folder.blobs() as long:
        kept, given = short.of(some(200)), long.of(some(50))
        long.take(kept)
        short.take(given)
        short.close()
        assert kept.scope is long
        assert kept.head(200) == some(200)
        with pytest.raises(ValueError, match="closed"):
            given.open()


@pytest.mark.parametrize("length", [50, 200])
def test_a_forgotten_scope_is_closed_and_complained_about(folder: WorkFolder, length: int) -> None:
    folder.blobs().of(some(length))
    with pytest.warns(ResourceWarning, match="a scope of blobs was not closed"):
        gc.collect()
    assert_empty(folder)


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────


HOLDER = """
import sys
import tracemalloc
from pathlib import Path
from app.pictures.work_folder import WorkFolder

folder = WorkFolder(Path(sys.argv[1]), memory_bytes=0)
blobs = folder.blobs()
blob = blobs.new()
blob.write(b"left behind")
blob.seal()
print(blob.path(), flush=True)
sys.stdin.read()
"""


def test_folders_of_dead_processes_are_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        left = Path(process.stdout.readline().strip())
        try:
            with WorkFolder(tmp_path) as folder:
                assert folder.clean() == 0
                assert left.read_bytes() == b"left behind"
                process.kill()
                process.wait(10)
                (tmp_path / "work-of-nobody").mkdir()  # killed before it had a lock
                (tmp_path / "elsewhere").mkdir()
                (tmp_path / "work-link").symlink_to(tmp_path / "elsewhere")
                assert folder.clean() == 2
                assert not left.parent.exists()
                assert folder.path.exists()
                assert (tmp_path / "elsewhere").exists()
            left.parent.mkdir()
            with WorkFolder(tmp_path):
                assert not left.parent.exists()
        finally:
            process.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "elsewhere", "work-link"]
