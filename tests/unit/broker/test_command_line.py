"""Plain options become settings; whatever has to be explained is left to those who explain."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.broker.command_line import Unclear, parse


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTTLA_LOG_RETENTION_MS", "1000")


def test_without_options_a_broker_has_a_place_and_an_address() -> None:
    assert parse([]) == {
        "log.retention.ms": "1000",
        "log.dirs": "./ottla-data",
        "listeners": "PLAINTEXT://127.0.0.1:9092",
    }


def test_later_ones_win(tmp_path: Path) -> None:
    file = tmp_path / "server.properties"
    file.write_text("listeners=PLAINTEXT://:1\nlog.dirs=/file\nlog.retention.ms=1\nnum.partitions=2\n")
    settings = parse(["--config", str(file), "--set", "num.partitions=3", "--set", "node.id=7", "-d", "/option"])
    assert settings == {
        "listeners": "PLAINTEXT://:1",
        "log.dirs": "/option",
        "log.retention.ms": "1000",
        "num.partitions": "3",
        "node.id": "7",
    }


@pytest.mark.parametrize(
    ("options", "listener"),
    [
        (["--port", "0"], "127.0.0.1:0"),
        (["--port=5"], "127.0.0.1:5"),
        (["-p", "5"], "127.0.0.1:5"),
        (["--host", "::1"], "[::1]:9092"),
        (["--host", "0.0.0.0", "-p5"], "0.0.0.0:5"),
    ],
)
def test_an_address_is_a_listener(options: list[str], listener: str) -> None:
    assert parse(options)["listeners"] == f"PLAINTEXT://{listener}"


@pytest.mark.parametrize(
    "options",
    [
        ["--help"],
        ["-h"],
        ["--port"],
        ["--port", "many"],
        ["--prot", "1"],
        ["--data", "d"],
        ["--data-dir", ""],
        ["stray"],
        ["--set", "no-equals-sign"],
        ["--config", "no-such-file"],
        ["--config", "."],
    ],
)
def test_what_must_be_explained_is_not_guessed(options: list[str]) -> None:
    with pytest.raises(Unclear):
        parse(options)
