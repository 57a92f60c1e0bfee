"""Every API and version: round trip, agreement with kio, and only MalformedMessage out of broken bytes."""

from __future__ import annotations

import io
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.serial import entity_reader, entity_writer

from ottla.protocol.codec import (
    MalformedMessage,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from ottla.protocol.generate import kio_class
from ottla.protocol.schema import Side, message_shape
from ottla.protocol.versions import ApiKey
from tests.property.messages import every_version, plain, plain_kio, random_message

EVERY_VERSION = every_version()
ENCODE = {"request": encode_request, "response": encode_response}
DECODE = {"request": decode_request, "response": decode_response}
SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS)
@settings(max_examples=3, deadline=None)
def test_what_is_encoded_is_decoded_alike_here_and_by_kio(seed: int) -> None:
    rng = Random(seed)
    for api, version, side in EVERY_VERSION:
        message = random_message(rng, api, version, side)
        cls = kio_class(api, version, side)
        body = ENCODE[side](api, version, message)
        assert DECODE[side](api, version, body) == message
        entity, size = entity_reader(cls)(body, 0)
        assert size == len(body)
        assert plain_kio(entity) == plain(message, message_shape(api, version, side))
        again = io.BytesIO()
        entity_writer(cls)(again, entity)
        assert again.getvalue() == body, (api, version, side)


def mutated(rng: Random, body: bytes) -> bytes:
    broken = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 5))):
        match rng.randrange(4):
            case 0:
                del broken[rng.randrange(len(broken) + 1) :]
            case 1 if broken:
                broken[rng.randrange(len(broken))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.getrandbits(8)))
            case 2:
                at = rng.randrange(len(broken) + 1)
                broken[at:at] = rng.choice(
                    (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\x07", b"\xff" * 8, rng.randbytes(3))
                )
            case 3 if broken:
                at = rng.randrange(len(broken))
                broken[at : at + 4] = b"\x7f\xff\xff\xf0"
    return bytes(broken)


@given(seed=SEEDS)
@settings(max_examples=5, deadline=None)
def test_broken_bytes_raise_malformed_message_and_nothing_else(seed: int) -> None:
    rng = Random(seed)
    for api, version, side in EVERY_VERSION:
        body = ENCODE[side](api, version, random_message(rng, api, version, side))
        for _ in range(4):
            try:
                DECODE[side](api, version, mutated(rng, body))
            except MalformedMessage:
                continue


@pytest.mark.parametrize("side", ["request", "response"])
@given(body=st.binary(max_size=64))
@settings(max_examples=5, deadline=None)
def test_any_bytes_at_all_raise_malformed_message_and_nothing_else(side: Side, body: bytes) -> None:
    for api, version, of_side in EVERY_VERSION:
        if of_side == side:
            try:
                DECODE[side](api, version, body)
            except MalformedMessage:
                continue


def test_every_api_is_covered() -> None:
    assert {api for api, _, _ in EVERY_VERSION} == set(ApiKey)
