"""The stackable PE array."""

from .array import Array

__all__ = ["Array"]
