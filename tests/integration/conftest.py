from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.testing.broker import EmbeddedBroker
from tests.integration.wire import Wire


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker with defaults, shared by the tests of a module."""
    with EmbeddedBroker(tmp_path_factory.mktemp("data") / "d") as running:
        yield running


@pytest.fixture
def wire(broker: EmbeddedBroker) -> Iterator[Wire]:
    """A connection to `broker`."""
    with Wire(broker.port) as connected:
        yield connected


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"
