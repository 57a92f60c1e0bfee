"""Producer ids for idempotent producers, out of blocks that the controller gives this broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

Block = range


class ProducerIds:
    """Hands out ids; the next block is asked for when the last one is used up, by one request at a time."""

    def __init__(self, allocate: Callable[[], Awaitable[Block]]) -> None:
        """Args: allocate: Asks the controller for a block that nobody else has or will have."""
        self._allocate = allocate
        self._ids = iter(Block(0))
        self._asking = trio.Lock()

    async def take(self) -> int:
        """Return an id that was never given out. Raises: KafkaError, if the controller gives no block."""
        producer_id = next(self._ids, None)
        if producer_id is not None:
            return producer_id
        async with self._asking:
            producer_id = next(self._ids, None)
            while producer_id is None:
                self._ids = iter(await self._allocate())
                producer_id = next(self._ids, None)
            return producer_id
