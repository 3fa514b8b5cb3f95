"""Verilog and sidecar agree, and stay the same."""

import json
import re

import pytest
from fluidnpu.hw.config import CONFIGS
from fluidnpu.sim.generate import describe, generate_verilog, write_verilog


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_verilog(CONFIGS["tiny"], tmp_path_factory.mktemp("verilog"))


def test_sidecar_lists_the_ports_of_the_verilog(written):
    source, sidecar = written
    text = source.read_text()
    header = text[text.index("module npu(") :]
    body = header[header.index(";") : header.index("endmodule")]
    found = {
        name: (direction, int(high or 0) + 1)
        for direction, high, name in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", body, re.M)
    }
    ports = json.loads(sidecar.read_text())["ports"]
    assert {p["name"]: (p["direction"] + "put", p["width"]) for p in ports} == found


def test_same_text_every_time(written):
    assert generate_verilog(CONFIGS["tiny"]) == written[0].read_text()


@pytest.mark.parametrize("name", CONFIGS)
def test_sidecar_of_every_configuration(name):
    described = describe(CONFIGS[name])
    assert described["configuration"]["hash"] == CONFIGS[name].hash
    assert len({p["name"] for p in described["ports"]}) == len(described["ports"])
