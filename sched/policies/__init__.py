"""Policies by name. A policy is one small class over `base.Policy`; it joins by an entry in ``POLICIES``."""

from .adaptive import Adaptive
from .base import Policy
from .fluid import Fluid
from .serial import Serial

__all__ = ["POLICIES", "Policy", "make_policy"]

POLICIES = {policy.name: policy for policy in (Serial, Adaptive, Fluid)}


def make_policy(name, model=None, **options):
    """The named policy. ``model``: SurvivalTables (policies that do not plan ignore it). Raises ValueError for an
    unknown name or option."""
    try:
        policy = POLICIES[name]
    except KeyError:
        raise ValueError(f"unknown policy {name!r}; there are {', '.join(POLICIES)}") from None
    try:
        return policy(model, **options)
    except TypeError as error:
        raise ValueError(f"policy {name}: {error}") from None
