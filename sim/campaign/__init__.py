"""The study: points (what is served on which NPU under which policy), their runs in parallel, and what comes out."""
