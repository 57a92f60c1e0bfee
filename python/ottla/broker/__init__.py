"""The broker's shell: Trio tasks that move bytes between sockets, the native data plane and the pure machines."""
