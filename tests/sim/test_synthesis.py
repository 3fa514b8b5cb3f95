"""The synthesis check on small designs; `make synth-check` itself runs it on the NPU."""

import json

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assert, Module, Print, signed
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out
from fluidnpu.hw.config import NpuConfig, get_config
from fluidnpu.sim import synthesis, synthesis_flow
from fluidnpu.sim.synthesis_flow import REPEATED, RESOURCES, Design, SynthesisError, Yosys, resources, synthesise


class Multiplier(Component):
    a: In(signed(8))
    b: In(signed(8))
    out: Out(signed(16))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.out.eq(self.a * self.b)
        return m


class Store(Component):
    """A memory that fits a block RAM, with an assertion and a message that synthesis must drop."""

    address: In(10)
    data: In(32)
    write: In(1)
    out: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = store = memory.Memory(shape=32, depth=1024, init=[])
        write, read = store.write_port(), store.read_port()
        m.d.comb += [write.addr.eq(self.address), write.data.eq(self.data), write.en.eq(self.write)]
        m.d.comb += [read.addr.eq(self.address), self.out.eq(read.data)]
        m.d.sync += [Assert(self.address != 3), Print("address")]
        return m


class System(Component):
    """``count`` equal multipliers and a store."""

    def __init__(self, count):
        self.count = count
        super().__init__({"a": In(8), "b": In(8 * count), "out": Out(16 * count), "word": Out(32), "flag": Out(1)})

    def elaborate(self, platform):
        m = Module()
        for i in range(self.count):
            m.submodules[f"multiplier_{i}"] = unit = Multiplier()
            m.d.comb += [
                unit.a.eq(self.a),
                unit.b.eq(self.b.word_select(i, 8)),
                self.out.word_select(i, 16).eq(unit.out),
            ]
        m.submodules.store = store = Store()
        m.d.comb += [
            store.address.eq(self.b),
            store.data.eq(self.b),
            store.write.eq(self.a[0]),
            self.word.eq(store.out),
        ]
        m.d.sync += self.flag.eq(self.a == 77)
        return m


# A combinational loop through two blocks. (Amaranth refuses to write one; an Instance could still make it.)
LOOP = """
module \\inverter
  wire input 0 \\i
  wire output 1 \\o
  cell $not $1
    parameter \\A_SIGNED 0
    parameter \\A_WIDTH 1
    parameter \\Y_WIDTH 1
    connect \\A \\i
    connect \\Y \\o
  end
end
module \\system
  wire output 0 \\out
  wire \\back
  cell \\inverter \\one
    connect \\i \\back
    connect \\o \\out
  end
  cell \\inverter \\two
    connect \\i \\out
    connect \\o \\back
  end
end
"""


def design(component):
    return Design(rtlil.convert(component, name="system", emit_src=False), "system")


def test_equal_modules_have_equal_hashes():
    d = design(System(REPEATED))
    units = [m for m in d.below("system") if "multiplier" in m]
    assert len(units) == REPEATED
    assert len({d.hash(m) for m in units}) == 1
    assert d.hash("system.store") != d.hash(units[0])
    assert d.hash("system") == design(System(REPEATED)).hash("system")
    assert d.hash("system") != design(System(REPEATED + 1)).hash("system")


def test_part_holds_black_boxes_instead_of_cut_modules():
    d = design(System(REPEATED))
    assert d.cuts() == {d.hash("system.multiplier_0"), d.hash("system.store")}
    whole, top = d.part("system"), d.part("system", d.cuts())
    assert whole.count("\nend\n") == 3 + ("system.store.memory" in d.bodies)
    assert "blackbox" not in whole
    assert top.count("blackbox") == 2
    assert "$mul" not in top
    assert "$memrd" not in top
    assert "$mul" in d.part("system.multiplier_3", d.cuts())


def test_repeated_modules_are_cut_wherever_they_are():
    class Outer(Component):
        def __init__(self):
            super().__init__({"a": In(8), "b": In(8 * REPEATED), "out": Out(16 * REPEATED)})

        def elaborate(self, platform):
            m = Module()
            m.submodules.inner = inner = System(REPEATED)
            m.d.comb += [inner.a.eq(self.a), inner.b.eq(self.b), self.out.eq(inner.out)]
            return m

    d = design(Outer())
    assert d.cuts() == {d.hash("system.inner"), d.hash("system.inner.multiplier_0")}
    assert d.hash("system.inner.store") in d.cuts(["system.inner"])


def test_large_shared_parts_are_cut(monkeypatch):
    class Outer(Component):
        def __init__(self, flag):
            self.flag = flag
            super().__init__({"a": In(8), "b": In(8), "out": Out(16), "word": Out(32)})

        def elaborate(self, platform):
            m = Module()
            m.submodules.block = block = System(1)
            m.d.comb += [block.a.eq(self.a ^ self.flag), block.b.eq(self.b), self.out.eq(block.out)]
            return m

    one, two = design(Outer(0)), design(Outer(1))
    shared = {one.hash(m) for m in one.bodies} & {two.hash(m) for m in two.bodies}
    assert one.hash("system") not in shared
    assert one.cuts(shared=shared) == {one.hash("system.block")}
    longest = max(one.length(part) for part in one.children["system.block"])
    monkeypatch.setattr(synthesis_flow, "SHARED_BYTES", longest)
    cut = max(one.children["system.block"], key=one.length)
    assert one.cuts(shared=shared) == {one.hash("system.block"), one.hash(cut)}
    assert one.cuts() == {one.hash("system.block")}


def test_block_table_sums_up_what_differs_in_numbers(capsys):
    unit = dict.fromkeys(RESOURCES, 2)
    sides = {
        "stackable": {"npu.pe_0_0": unit, "npu.pe_1_0": unit, "npu.exit$5": unit},
        "max_stack 1": {"npu.exit$7": unit},
    }
    synthesis._print_blocks(sides)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "npu" in line]
    assert [line[0] for line in lines] == ["npu.pe_*", "npu.exit"]
    assert [line[-2] for line in lines] == ["+4", "+0"]


def test_unknown_top():
    with pytest.raises(SynthesisError, match="there is no module 'other' in the design"):
        Design("module \\one\nend\n", "other")


def test_resources():
    cells = {"LUT6": 3, "LUT2": 1, "SRL16E": 2, "RAM64M": 5, "FDRE": 7, "FDSE": 1, "DSP48E1": 2, "CARRY4": 9}
    cells |= {"RAMB36E1": 1, "RAMB18E1": 3, "MUXF7": 1, "INV": 4}
    assert resources(cells) == {"LUT": 26, "RAM": 20, "FF": 8, "DSP": 2, "BRAM": 2.5}
    with pytest.raises(SynthesisError, match=r"2 cells LDCE are left in the netlist: not a cell of the FPGA"):
        resources({"LUT6": 1, "LDCE": 2})


def test_compare():
    golden = {"stackable": {"LUT": 1000, "DSP": 0}}
    assert synthesis.compare("x", {"stackable": {"LUT": 1050, "DSP": 0}}, golden) == []
    assert synthesis.compare("x", {"stackable": {"LUT": 950}}, golden) == []
    assert synthesis.compare("x", {"stackable": {"LUT": 1051}}, golden) == [
        "x stackable: LUT 1051, golden 1000: more than 5% off"
    ]
    assert len(synthesis.compare("x", {"stackable": {"LUT": 949, "DSP": 1}}, golden)) == 2
    assert synthesis.compare("x", {}, {}) == ["x: no golden figures; --update writes them"]
    assert synthesis.compare("x", {"ratio": {"LUT": 1.0}}, golden) == ["x ratio: no golden figure for LUT"]


def test_ratios():
    a = dict.fromkeys(RESOURCES, 0) | {"LUT": 108, "DSP": 4}
    b = dict.fromkeys(RESOURCES, 0) | {"LUT": 100, "DSP": 4}
    assert synthesis.ratios(a, b) == {"LUT": 1.08, "RAM": 1, "FF": 1, "DSP": 1, "BRAM": 1}
    assert synthesis.total({"one": a, "two": b})["LUT"] == 208


def test_golden_figures_are_complete():
    golden = json.loads(synthesis.GOLDEN.read_text())
    assert set(golden) == {"tiny", "edge"}
    for rows in golden.values():
        assert list(rows) == ["stackable", "max_stack 1", "ratio"]
        assert all(set(figures) == set(RESOURCES) for figures in rows.values())
        expected = synthesis.ratios(rows["stackable"], rows["max_stack 1"])
        assert rows["ratio"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["tiny", "edge"])
def test_golden_multipliers(name):
    """One DSP per int8 multiplier of the array and at least four per post lane (32x32 bits); stacking adds none."""
    rows = json.loads(synthesis.GOLDEN.read_text())[name]
    config: NpuConfig = get_config(name)
    assert rows["stackable"]["DSP"] >= config.peak_macs + 4 * config.post_lanes
    assert rows["ratio"]["DSP"] <= 1


def test_synthesis_of_a_small_design(tmp_path, monkeypatch):
    yosys = Yosys(tmp_path)
    d = design(System(REPEATED))
    blocks = synthesise(d, yosys, title="small")
    assert list(blocks) == ["system", *(f"system.multiplier_{i}" for i in range(REPEATED)), "system.store"]
    assert blocks["system.multiplier_0"]["DSP"] == 1
    assert blocks["system.store"] == {"LUT": 0, "RAM": 0, "FF": 0, "DSP": 0, "BRAM": 1}
    assert blocks["system"]["FF"] == 1
    assert 1 <= blocks["system"]["LUT"] <= 3
    assert synthesis.total(blocks)["DSP"] == REPEATED

    # the second time nothing runs
    monkeypatch.setattr(synthesis_flow.subprocess, "run", lambda *_, **__: pytest.fail("Yosys ran again"))
    assert synthesise(d, yosys) == blocks


def test_a_loop_through_two_blocks_is_an_error(tmp_path):
    with pytest.raises(SynthesisError, match="loop: check of the whole design: ERROR: Found 1 problems in 'check"):
        synthesise(Design(LOOP, "system"), Yosys(tmp_path), title="loop")


def test_unknown_configuration(tmp_path, capsys):
    assert synthesis.main(["--config", "huge", "--folder", str(tmp_path)]) == 2
    assert "unknown configuration 'huge'" in capsys.readouterr().err
