from tests.api.conftest import start  # noqa: F401
