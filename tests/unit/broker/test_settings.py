"""Files, environment and single keys, in rising rank."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.broker.settings import InvalidSetting, key_of_variable, load_settings


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("OTTLA_LOG_RETENTION_MS", "log.retention.ms"),
        ("OTTLA_NODE_ID", "node.id"),
        ("OTTLA_A__B_C", "a_b.c"),
        ("OTTLA_A___B", "a-b"),
    ],
)
def test_variables_name_keys_as_in_kafkas_images(variable: str, key: str) -> None:
    assert key_of_variable(variable) == key


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "server.properties"
    file.write_text("a=file\nb=file\nc=file\n")
    environment = {"OTTLA_B": "environment", "OTTLA_C": "environment", "PATH": "x"}
    assert load_settings(file=file, environment=environment, assignments=["c = single=x"]) == {
        "a": "file",
        "b": "environment",
        "c": "single=x",
    }


@pytest.mark.parametrize("assignment", ["novalue", "=x"])
def test_an_assignment_without_key_or_value_is_refused(assignment: str) -> None:
    with pytest.raises(InvalidSetting):
        load_settings(assignments=[assignment])
