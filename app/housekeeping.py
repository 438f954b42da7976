"""Removes temporary files and old private pictures. Each function runs until it is cancelled."""

import asyncio

import structlog

from app.contract.errors import GatewayError
from app.logs import causes
from app.pictures.work_folder import WorkFolder
from app.storage.private import PrivateStore

log = structlog.get_logger()

_CLEANING_SECONDS = 60
_SWEEPING_SECONDS = 60


async def clean(work: WorkFolder) -> None:
    """Remove the work folders of processes that have ended."""
    while True:
        await asyncio.sleep(_CLEANING_SECONDS)
        try:
            await asyncio.to_thread(work.clean)
        except OSError as exc:
            log.warning("the work folder cannot be cleaned", cause=causes(exc))


async def sweep(private: PrivateStore, keep_seconds: float) -> None:
    """Delete private pictures that are older than `keep_seconds`."""
    while True:
        try:
            await private.sweep(keep_seconds)
        except GatewayError as exc:
            log.warning("old private pictures cannot be deleted", cause=causes(exc))
        await asyncio.sleep(_SWEEPING_SECONDS)
