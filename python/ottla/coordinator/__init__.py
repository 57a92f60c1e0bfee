"""Coordinators: pure state machines over partitions of internal topics.

`shard` is the shape they share, `timeline` keeps the committed view of their state beside the latest one,
`timers` their deadlines, and `group` holds the group coordinator.
"""
