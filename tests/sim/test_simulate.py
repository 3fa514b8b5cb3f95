"""How the simulator finds the function that it is to run."""

import sys
from importlib.machinery import ModuleSpec

from fluidnpu.sim.bench import model_speed
from fluidnpu.sim.simulate import _name_of


def test_module_that_python_runs(monkeypatch):
    """What `python -m` runs is called __main__, and is found under its own name; a script by its file."""
    function, main = model_speed.rounds_on_rtl, sys.modules["__main__"]
    assert _name_of(function) == "fluidnpu.sim.bench.model_speed:rounds_on_rtl"
    monkeypatch.setattr(function, "__module__", "__main__")
    monkeypatch.setattr(main, "__spec__", ModuleSpec("fluidnpu.sim.bench.model_speed", None))
    assert _name_of(function) == "fluidnpu.sim.bench.model_speed:rounds_on_rtl"
    monkeypatch.setattr(main, "__spec__", None)
    assert _name_of(function) == f"{model_speed.__file__}:rounds_on_rtl"
