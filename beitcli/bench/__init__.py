"""Benchmarks of this machine, for `beit bench`."""
