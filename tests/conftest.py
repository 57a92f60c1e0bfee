"""What all tests share: how they are spread over the processes that run them, and how hypothesis measures."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Both would measure what else the machine is doing.
settings.register_profile("beside others", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beside others")

ORDER: Final = ("compat", "integration", "property", "golden", "arch", "unit")
"""What takes long begins early; what is short fills the gaps at the end."""

APART: Final = "golden"
"""Each process has a broker of its own for these, and none of them needs another."""


def directory(nodeid: str) -> str:
    return nodeid.split("/")[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(directory(item.nodeid)))


class ByModule(LoadScopeScheduling):
    """Tests of a module stay together, as they share what is dear to make.

    xdist's own `--dist loadgroup` leaves every test alone: it writes groups into a field that pytest 9.2 has no more.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if directory(nodeid) == APART else nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    config.option.loadscopereorder = False  # the modules have their order
    return ByModule(config, log)
