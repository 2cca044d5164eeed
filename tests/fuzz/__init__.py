"""Fuzz targets: what takes bytes from strangers, each with its seeds and what must hold (docs/internals/fuzzing.md)."""
