"""One emulator for all examinations of this folder, quiet and with empty books at the start of each."""

from collections.abc import Iterator

import pytest

from app.contract.models import load_catalogue
from app.emulator.server import Emulator


@pytest.fixture(scope="session")
def running_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    data_dir = tmp_path_factory.mktemp("emulator")
    emulator = Emulator(catalogue=load_catalogue(), data_dir=data_dir)
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture
def emulator(running_emulator: Emulator) -> Emulator:
    running_emulator.troubles.clear()
    running_emulator.calls.clear()
    return running_emulator
