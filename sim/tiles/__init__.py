"""The tile model: the engine's own algorithm, a tile at a time; for studies of millions of tiles."""
