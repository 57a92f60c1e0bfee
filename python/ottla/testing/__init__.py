"""Helpers for tests of programs that use a broker, and of the broker itself."""
