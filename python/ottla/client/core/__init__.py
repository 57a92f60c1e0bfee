"""The client's deciders: no sockets, clock, chance or tasks."""
