"""The host: device driver, serving loop, policies. It knows registers and cycles, and no simulator."""
