"""What all tests share: how they are spread over the processes that run them, and how hypothesis measures."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# Both would measure what else the machine is doing.
settings.register_profile("beside others", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beside others")

ORDER: Final = ("compat", "integration", "property", "golden", "arch", "unit")
"""What takes long begins early; what is short fills the gaps at the end."""

APART: Final = "golden"
"""Each process has a broker of its own for these, and none of them needs another."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a module stay together, as they share what is dear to make (`--dist loadgroup`)."""
    items.sort(key=lambda item: ORDER.index(_directory(item)))
    for item in items:
        if _directory(item) != APART:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _directory(item: pytest.Item) -> str:
    return item.nodeid.split("/")[1]
