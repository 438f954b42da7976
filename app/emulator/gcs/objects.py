"""The objects of the emulated Cloud Storage, on disk, and the rules for creating one.

The calling account can create objects. It cannot replace or delete them, and everyone can read them: the
gateway's bucket has to be set up the same way. In buckets with a name that ends in `-private` (PRIVATE_STORE)
the account can also delete objects. Every legal bucket name exists.
"""

import hashlib
import json
import os
import re
import tempfile
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c
from starlette.responses import JSONResponse, Response

from app.emulator.calls import Json

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_MAX_NAME_BYTES = 1024
_FIELDS = frozenset({"cacheControl", "contentType", "crc32c", "md5Hash", "name"})
"""The fields that the emulator understands or can safely ignore. It refuses every other field."""


class Refused(Exception):
    """An error answer of Cloud Storage: `reason` names it, `where` is merged into the detail."""

    def __init__(self, status: int, reason: str, message: str, **where: str) -> None:
        super().__init__(message)
        self.status = status
        self._detail = {"message": message, "domain": "global", "reason": reason, **where}

    def response(self) -> Response:
        error = {"code": self.status, "message": self._detail["message"], "errors": [self._detail]}
        return JSONResponse({"error": error}, self.status)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object: its resource (the JSON of the API) and its bytes."""

    resource: Json
    data: bytes = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a download."""
        resource = self.resource
        kept = {"Cache-Control": resource["cacheControl"]} if "cacheControl" in resource else {}
        return kept | {
            "Content-Type": resource["contentType"],
            "ETag": f'"{b64decode(resource["md5Hash"]).hex()}"',
            "Last-Modified": _http_date(resource["updated"]),
            "X-Goog-Generation": resource["generation"],
            "X-Goog-Metageneration": resource["metageneration"],
            "X-Goog-Storage-Class": resource["storageClass"],
            "X-Goog-Stored-Content-Encoding": "identity",
            "X-Goog-Stored-Content-Length": resource["size"],
            "X-Goog-Hash": f"crc32c={resource['crc32c']},md5={resource['md5Hash']}",
        }


class Objects:
    """Objects on disk under `data_dir/objects`, one file each: a line of JSON (the resource), then the bytes.

    A file is written aside and then linked to its place, which fails if the place is taken. So several
    processes can share the folder, and exactly one of two writers of a name succeeds. The file's name is the
    hash of the object's name, so that no name leads out of the folder. All methods touch the disk: call them
    off the event loop.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "objects"

    def put(
        self, bucket: str, wanted: Json, data: bytes, *, if_generation_match: int | None = None
    ) -> StoredObject:
        """Creates an object.

        `wanted` is the resource that the client sends: name, contentType, cacheControl, and crc32c or md5Hash
        to check. Raises Refused: 400 for an illegal value or another checksum, 412 if the precondition fails,
        403 if the name is taken (to replace an object needs the permission to delete it).
        """
        name = wanted.get("name")
        path = self._path(bucket, name)
        stored = StoredObject(_resource(bucket, wanted, data), data)
        if if_generation_match and not path.exists():
            raise precondition_failed()
        try:
            self._link(path, stored)
        except FileExistsError:
            current = _read_resource(path)["generation"]
            if if_generation_match is not None and str(if_generation_match) != current:
                raise precondition_failed() from None
            raise not_granted("storage.objects.delete", f"{bucket}/{name}") from None
        return stored

    def get(self, bucket: str, name: str) -> StoredObject | None:
        """Returns the object, or None if it does not exist. Raises Refused for an illegal name."""
        try:
            return _read(self._path(bucket, name))
        except FileNotFoundError:
            return None

    def list(self, bucket: str, prefix: str = "") -> list[Json]:
        """Returns the resources with names that begin with `prefix`, in the order of the names' bytes."""
        check_bucket(bucket)
        found = []
        for path in (self._root / bucket).glob("*"):
            with suppress(FileNotFoundError):  # deleted meanwhile
                resource = _read_resource(path)
                if resource["name"].startswith(prefix):
                    found.append(resource)
        return sorted(found, key=lambda resource: resource["name"].encode())

    def delete(self, bucket: str, name: str) -> None:
        """Raises Refused: 403 if the account cannot delete here, 404 if the object does not exist."""
        path = self._path(bucket, name)
        if not may_delete(bucket):
            raise not_granted("storage.objects.delete", f"{bucket}/{name}")
        try:
            path.unlink()
        except FileNotFoundError:
            raise not_found(bucket, name) from None

    def _path(self, bucket: str, name: Any) -> Path:
        check_bucket(bucket)
        return self._root / bucket / hashlib.sha256(_legal_name(name)).hexdigest()

    def _link(self, path: Path, stored: StoredObject) -> None:
        aside = self._root / ".aside"  # a bucket's name cannot begin with a dot
        aside.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=aside) as file:
            file.write(json.dumps(stored.resource).encode() + b"\n")
            file.write(stored.data)
            file.flush()
            os.link(file.name, path)


def _read(path: Path) -> StoredObject:
    with path.open("rb") as file:
        return StoredObject(json.loads(file.readline()), file.read())


def _read_resource(path: Path) -> Json:
    with path.open("rb") as file:
        resource: Json = json.loads(file.readline())
    return resource


def may_delete(bucket: str) -> bool:
    return bucket.endswith("-private")


def check_bucket(bucket: str) -> None:
    if not _BUCKET.fullmatch(bucket):
        raise Refused(400, "invalid", f"Invalid bucket name: '{bucket}'")


def _legal_name(name: Any) -> bytes:
    """Returns the name's bytes. Raises Refused for a name that Cloud Storage does not accept."""
    if not name:
        raise Refused(400, "required", "Required", locationType="parameter", location="name")
    try:
        encoded: bytes = name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise Refused(400, "invalid", "Invalid value for field: name") from None
    if len(encoded) > _MAX_NAME_BYTES:
        raise Refused(400, "invalid", "The maximum object length is 1024 characters.")
    if name in (".", "..") or {"\r", "\n"} & set(name) or name.startswith(".well-known/acme-challenge/"):
        raise Refused(400, "invalid", "Disallowed unicode characters present in object name.")
    return encoded


def _resource(bucket: str, wanted: Json, data: bytes) -> Json:
    """Returns the resource of a new object. Raises Refused for a value that Cloud Storage does not accept."""
    if "acl" in wanted:
        raise acl_refused()
    if unknown := sorted(set(wanted) - _FIELDS):
        raise Refused(400, "invalid", f"The emulator does not know the field {unknown[0]}")
    name, generation = wanted["name"], str(time.time_ns() // 1000)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    resource = {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{generation}",
        "name": name,
        "bucket": bucket,
        "generation": generation,
        "metageneration": "1",
        "contentType": _text(wanted, "contentType") or "application/octet-stream",
        "storageClass": "STANDARD",
        "size": str(len(data)),
        "md5Hash": b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        "crc32c": b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode(),
        "etag": b64encode(generation.encode()).decode(),
        "timeCreated": now,
        "updated": now,
        "timeStorageClassUpdated": now,
    }
    if cache_control := _text(wanted, "cacheControl"):
        resource["cacheControl"] = cache_control
    for key, called in (("crc32c", "CRC32C"), ("md5Hash", "MD5 hash")):
        if (given := _text(wanted, key)) and given != resource[key]:
            message = f'Provided {called} "{given}" doesn\'t match calculated {called} "{resource[key]}".'
            raise Refused(400, "invalid", message)
    return resource


def _text(wanted: Json, key: str) -> str:
    """Returns a text field, "" without it. Raises Refused for a text that cannot stand in a header."""
    value = wanted.get(key) or ""
    if not isinstance(value, str) or not value.isprintable() or not value.isascii():
        raise Refused(400, "invalid", f"Invalid value for field: {key}")
    return value


def _http_date(timestamp: str) -> str:
    return datetime.fromisoformat(timestamp).strftime("%a, %d %b %Y %H:%M:%S GMT")


def precondition_failed() -> Refused:
    message = "At least one of the pre-conditions you specified did not hold."
    return Refused(412, "conditionNotMet", message, locationType="header", location="If-Match")


def not_granted(permission: str, what: str) -> Refused:
    message = (
        f"The caller does not have {permission} access to the Google Cloud Storage object. "
        f"Permission '{permission}' denied on resource '{what}' (or it may not exist)."
    )
    return Refused(403, "forbidden", message)


def not_found(bucket: str, name: str) -> Refused:
    return Refused(404, "notFound", f"No such object: {bucket}/{name}")


def acl_refused() -> Refused:
    message = "Cannot insert legacy ACL for an object when uniform bucket-level access is enabled."
    return Refused(400, "invalid", message)
