"""Fluid batching under overload: two of its options by name, for comparisons."""

from .fluid import Fluid

__all__ = ["FluidLeave", "FluidShed"]


class FluidShed(Fluid):
    """`Fluid` that sheds what certainly misses its deadline, to be compared with policies that drop requests."""

    name, drops = "fluid-shed", True

    def __init__(self, model=None, **options):
        super().__init__(model, **{"late": "shed", **options})


class FluidLeave(Fluid):
    """`Fluid` that tells samples to leave at the head before their deadline: nobody is dropped, some answers are less
    sure (see Result.exit against the exit that the sample would have taken)."""

    name = "fluid-leave"

    def __init__(self, model=None, **options):
        super().__init__(model, **{"leave": True, **options})
