"""Policies by name. A policy is one small class over `base.Policy`; it joins by an entry in ``POLICIES``."""

from .adaptive import Adaptive, AdaptiveBubble, AdaptiveHold, Aimd, AimdBubble, AimdHold
from .base import Policy
from .drex import Drex
from .dysta import Dysta
from .fluid import Fluid
from .fluid_variants import FluidLeave, FluidShed
from .graph_batching import Graph, GraphBubble, GraphHold
from .layered import Edf, Llf, Sjf, SrtfEe
from .lazy import Lazy, LazyFair
from .nexus import Nexus
from .oracle import Oracle
from .prema import Prema
from .proteus import Proteus
from .serial import Serial

__all__ = ["POLICIES", "Policy", "make_policy"]

_ALL = (
    Serial, Graph, GraphBubble, GraphHold, Adaptive, AdaptiveBubble, AdaptiveHold, Aimd, AimdBubble, AimdHold, Lazy,
    LazyFair, Nexus, Proteus, Prema, Dysta, Sjf, Edf, Llf, SrtfEe, Drex, Oracle, Fluid,
    FluidShed, FluidLeave,
)  # fmt: skip
POLICIES = {policy.name: policy for policy in _ALL}


def make_policy(name, model=None, **options):
    """The named policy. ``model``: SurvivalTables, or a sequence of them, one per program (policies that do not plan
    ignore it). Raises ValueError for an unknown name or option."""
    try:
        policy = POLICIES[name]
    except KeyError:
        raise ValueError(f"unknown policy {name!r}; there are {', '.join(POLICIES)}") from None
    try:
        return policy(model, **options)
    except TypeError as error:
        raise ValueError(f"policy {name}: {error}") from None
