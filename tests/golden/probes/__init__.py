"""The questions, one module an area. See `tests.golden.lab.probe`."""
