"""The figures of docs/benchmarks.md, measured on the RTL: `fluidnpu bench`, `make bench`."""

from .main import main

__all__ = ["main"]
