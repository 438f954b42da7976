"""The emulated Cloud Storage and the gateway's client for it, from tests/storage."""

from tests.storage.conftest import drawn, gcs, running_store, store, transport

__all__ = ["drawn", "gcs", "running_store", "store", "transport"]
