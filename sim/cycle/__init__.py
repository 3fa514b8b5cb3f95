"""The cycle model: the NPU without its data path, exact to the cycle (docs/architecture.md)."""
