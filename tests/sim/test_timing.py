"""Times for the compiler against measurements of the same program, which drive the model like hardware."""

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.tflite_reader import read_network
from fluidnpu.sim.bench.measure import measure
from fluidnpu.sim.cli import MODELS
from fluidnpu.sim.compiled import compiled_program
from fluidnpu.sim.timing import operation_ends

TINY = get_config("tiny")
DIGITS = MODELS / "digits.tflite"
PHASE = 16  # cycles: the descriptor cache looks at one slot after the other, and the runs begin at different ones


def descriptors(program):
    raw = np.frombuffer(program.region, "<u4")[: len(program.ops) * isa.DESCRIPTOR_WORDS]
    return raw.reshape(len(program.ops), isa.DESCRIPTOR_WORDS)


@pytest.fixture(scope="module")
def program():
    return compile_network(read_network(DIGITS), TINY)


@pytest.mark.parametrize("live", [1, 3, 4])
def test_as_measured(program, live):
    """Layers of the trunk, from one's last MAC to the next one's."""
    rows = descriptors(program)
    ends = operation_ends(TINY, rows, program.arena_bytes, live, 0, len(program.ops) - 1)
    trunk = [i for i, op in enumerate(program.ops) if op.variants and op.head < 0]
    assert sorted(k for k in ends if k is not None) == trunk and ends[None] > ends[trunk[-1]]
    found = np.diff([ends[i] for i in trunk])
    expected = [layer.cycles for layer in measure(TINY, program, live).layers[1:-1]]
    assert np.abs(found - expected).max() <= PHASE
    assert np.array_equal(rows, descriptors(program))  # left as they were


def test_part_of_a_program(program):
    """From one layer on, all before it being written; enabled exits lead through their heads."""
    rows, ops = descriptors(program), program.ops
    jump = next(i for i, op in enumerate(ops) if op.op == "JUMP")
    head = [i for i, op in enumerate(ops) if op.head == ops[jump].exit and op.variants]
    exit = next(i for i, op in enumerate(ops) if op.op == "EXIT")
    ends = operation_ends(TINY, rows, program.arena_bytes, 2, jump - 1, exit, 1 << ops[jump].exit)
    assert sorted(k for k in ends if k is not None) == [jump - 1, *head]
    over = operation_ends(TINY, rows, program.arena_bytes, 2, jump - 1, exit + 2, 0)
    assert sorted(k for k in over if k is not None) == [jump - 1, exit + 1]
    assert 0 < over[jump - 1] < over[exit + 1]


def test_compiled_once(tmp_path, monkeypatch):
    """A program comes from the build folder the second time; thresholds are not part of what is kept."""
    monkeypatch.setattr("fluidnpu.sim.compiled.build_root", lambda: tmp_path)
    network, said = read_network(DIGITS), []
    first = compiled_program(TINY, network, CompileOptions(limits=(5, 6, 7)), said.append)
    assert said and len(list((tmp_path / "programs").iterdir())) == 1
    said.clear()
    second = compiled_program(TINY, network, CompileOptions(limits=(8, 9, 10)), said.append)
    assert not said and second.region == first.region and second.ops == first.ops
    assert [e.limit for e in first.exits] == [5, 6, 7] and [e.limit for e in second.exits] == [8, 9, 10]
    compiled_program(TINY, network, CompileOptions(fold="none"))
    assert len(list((tmp_path / "programs").iterdir())) == 2
