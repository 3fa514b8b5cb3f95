"""The fluid-batching engine: who stands where, who leads, who rides, who leaves."""
