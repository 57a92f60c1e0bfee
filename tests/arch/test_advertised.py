"""ApiVersions names what has a handler, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil

from ottla.protocol.versions import API_VERSIONS, ApiKey

handlers = importlib.import_module("ottla.broker.handlers")
dispatch = importlib.import_module("ottla.broker.dispatch")
NATIVE = {ApiKey.PRODUCE, ApiKey.FETCH}
"""Served inside the native module, without a Python handler."""


def handled() -> dict[ApiKey, str]:
    keys: dict[ApiKey, str] = {}
    for module in pkgutil.iter_modules(handlers.__path__, "ottla.broker.handlers."):
        for key in getattr(importlib.import_module(module.name), "HANDLERS", {}):
            assert key not in keys, f"{key.name} is handled in {keys[key]} and {module.name}"
            keys[key] = module.name
    return keys


def test_advertised_is_exactly_what_is_handled() -> None:
    assert set(dispatch.ADVERTISED) == set(handled()) | NATIVE


def test_advertised_versions_are_kafkas() -> None:
    assert set(dispatch.ADVERTISED) <= set(API_VERSIONS)
