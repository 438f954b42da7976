from tests.api.conftest import cloud, emulator, start  # noqa: F401
