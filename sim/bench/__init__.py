"""Measurements: what a machine of these sizes does with a network, and how fast the simulation of it is."""
