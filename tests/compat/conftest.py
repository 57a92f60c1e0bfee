"""Fixtures of the tests of foreign clients, and a record of what passed for docs/compatibility.md.

Every module tests one client and names it in `CLIENT` (name, version or a callable that returns it). The first line of
a test's docstring is what the table of clients says for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from ottla.testing.broker import BrokerProcess

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / ".tools"
RESULTS = TOOLS / "compat-results.json"

_outcomes: dict[str, dict[str, str]] = {}
_versions: dict[str, str] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.compat)
            item.add_marker(pytest.mark.filterwarnings("default"))  # other people's deprecations are not ours


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    client = getattr(getattr(item, "module", None), "CLIENT", None)
    if client is not None and (report.when == "call" or report.outcome != "passed"):
        name, version = client
        phrase = getattr(item, "callspec", None) and item.callspec.params.get("check")
        phrase = phrase or (item.function.__doc__ or item.name).strip().splitlines()[0].rstrip(".")
        _versions[name] = version() if callable(version) else version
        outcomes = _outcomes.setdefault(name, {})
        if outcomes.get(phrase) != "failed":  # several variants of a test share its phrase
            outcomes[phrase] = report.outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the outcomes, those of tests that did not run this time included."""
    if not _outcomes or os.environ.get("OTTLA_COMPAT_BOOTSTRAP"):
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, outcomes in _outcomes.items():
        before = known.get(name, {"outcomes": {}})["outcomes"]
        known[name] = {"version": _versions[name], "outcomes": before | outcomes}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker shared by all tests, or the one named by OTTLA_COMPAT_BOOTSTRAP (an Apache Kafka, to test the tests)."""
    if named := os.environ.get("OTTLA_COMPAT_BOOTSTRAP"):
        yield named
        return
    with BrokerProcess(tmp_path_factory.mktemp("compat") / "data") as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of the test's own, to be killed."""
    if os.environ.get("OTTLA_COMPAT_BOOTSTRAP"):
        pytest.skip("the named broker is not ours to kill")
    with BrokerProcess(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names that no other test has."""
    run = uuid4().hex[:8]
    return lambda stem: f"{stem}-{run}"
