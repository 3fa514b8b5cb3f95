"""The NPU with bus models of others, which know nothing of ours: cocotbext-axi's master and memory, with pauses.

The configuration has fewer program regions and exits than their fields can name: commands can name missing ones.
"""

from dataclasses import replace

import numpy as np
import pytest
from axi_models import Case
from fluidnpu.hw import isa
from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import Code, Opcode, Status
from fluidnpu.nn.exits import exit_table, top_and_spread
from networks import compiled, draw_network
from port_build import port_build, run_at_ports

CONFIG = replace(get_config("tiny"), name="tiny-ports", programs=2, exits=4)
WRONG = (
    (Opcode.LIMIT, {"program": 2, "exit": 0, "limit": 1}, Code.EXIT),
    (Opcode.LIMIT, {"program": 0, "exit": 4, "limit": 1}, Code.EXIT),
    (Opcode.LIMIT, {"program": 3, "exit": 15, "limit": 1}, Code.EXIT),
    (Opcode.ADMIT, {"slot": 3, "pc": isa.make_pc(2, 0), "arena_base": 64, "arena_bytes": 64}, Code.PC),
    (Opcode.ADMIT, {"slot": 4, "arena_base": 64, "arena_bytes": 64}, Code.SLOT),
)


@pytest.fixture(scope="module")
def simulator():
    return port_build(CONFIG)


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(11)
    return compiled(draw_network(rng, exits=2, layers=2), CONFIG, rng)


@pytest.mark.parametrize(
    ("pauses", "host_pauses"), [("none", "none"), ("random", "random"), ("slow", "burst"), ("burst", "slow")]
)
def test_serve(simulator, network, pauses, host_pauses):
    """Every tensor, every answer; wrong commands have their codes."""
    images = tuple(network.program.pack_input(image) for image in network.images[:2])
    wrong = tuple((int(opcode), fields) for opcode, fields, _ in WRONG)
    case = Case(1, pauses, host_pauses, network.program, images, wrong)
    result = run_at_ports(simulator, "axi_models", case)
    assert [(a.status, a.code) for a in result["answers"]] == [(Status.ERROR, code) for _, _, code in WRONG]
    last = len(network.network.ends) - 1
    exit = network.network.ends[last]
    for tag, expected in enumerate(network.tensors[: len(images)]):
        top, spread = top_and_spread(expected[exit.logits.name][0, 0], exit_table(exit.scale, exit.beta))
        completion = result["completions"][tag]
        assert (completion.status, completion.exit, completion.top, completion.spread) == (Status.OK, last, top, spread)
        for name, tensor in result["tensors"][tag].items():
            assert (tensor == expected[name]).all(), f"sample {tag}, tensor {name}"
    assert result["counters"]["write_beats"] and result["counters"]["exits_1"] == len(images)
