"""Listeners as Kafka writes them."""

from __future__ import annotations

import pytest

from ottla.common.endpoints import Endpoint, InvalidEndpoint, parse_endpoints


def test_parse() -> None:
    assert parse_endpoints("PLAINTEXT://:9092, internal://10.0.0.1:0,V6://[::1]:9094,ALL://0.0.0.0:9095") == (
        Endpoint(name="PLAINTEXT", host="", port=9092),
        Endpoint(name="INTERNAL", host="10.0.0.1", port=0),
        Endpoint(name="V6", host="::1", port=9094),
        Endpoint(name="ALL", host="0.0.0.0", port=9095),
    )
    assert parse_endpoints("") == ()


@pytest.mark.parametrize(
    "text",
    ["localhost:9092", "A://h", "A://h:65536", "A://h:-1", "A://h:1,A://h:2", "A://h:1,B://h:1", "A://a b:1"],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidEndpoint):
        parse_endpoints(text)


def test_text() -> None:
    assert str(Endpoint(name="A", host="::1", port=1)) == "A://[::1]:1"
