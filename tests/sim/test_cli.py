"""The command line: help, bad input in one line, and the commands that need no simulator."""

import json
import re

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.nn.program import Program
from fluidnpu.nn.tflite_reader import read_network
from fluidnpu.sim.cli import main
from fluidnpu.sim.lint import WAIVERS, lint_verilog
from fluidnpu.sim.options import MODELS, window_of
from fluidnpu.sim.study import InputError, limits_of, read_images

NETWORK = str(MODELS / "digits.tflite")


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code


@pytest.mark.parametrize("command", [(), ("sim",), ("run",), ("bench",), ("compile",), ("verilog",), ("report",)])
def test_help(command, capsys):
    assert call(*command, "--help") == 0
    assert "Usage: fluidnpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["sim", "--config", "huge"], "unknown configuration 'huge'; there are tiny, ecp5, gemmini16, edge, hub"),
        (["sim", "--policy", "luck"], "unknown policy 'luck'; there are serial, "),
        (["sim", "--device", "board"], "unknown device 'board'; there are rtl, model"),
        (["sim", "--device", "model", "--waves", "1:2"], "--waves: the cycle model has no waves; use --device rtl"),
        (["sim", "--network", "no.tflite"], "network no.tflite: No such file or directory"),
        (["sim", "--images", "no.npz"], "images no.npz: No such file or directory"),
        (
            ["sim", "--arrivals", "no.txt"],
            "arrivals 'no.txt': neither poisson nor bursts nor cameras nor a file of timestamps",
        ),
        (["sim", "--rate", "0"], "--rate and --gap must be positive, not 0.0"),
        (["sim", "--waves", "5"], "--waves 5: it must be FIRST:LAST, two cycles"),
        (["sim", "--waves", "9:5"], "--waves 9:5: it must be FIRST:LAST, two cycles"),
        (["sim", "--memory", "slow"], "unknown memory 'slow'; there are ideal, limited"),
        (["sim", "-t", "0.8", "-t", "0.8", "-t", "0", "-t", "0"], "4 thresholds for 3 exits; give one, 2 or 3"),
        (["sim", "--bogus"], "No such option: --bogus"),
        (["sim", "--rounding", "exact"], "unknown rounding 'exact'; there are litert, micro"),
        (["compile", "no.tflite"], "network no.tflite: No such file or directory"),
        (["compile", __file__], "not a .tflite file"),
        (["report", "--out", "nowhere"], "nowhere/records.pickle is not there"),
        (["run", "no.tflite"], "network no.tflite: No such file or directory"),
        (["run", "--bare", "--waves", "1:2"], "--bare and --waves: a run without Python writes no waves"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("fluidnpu.sim.study.npu_build", lambda *_, **__: pytest.fail("bad input is found too late"))
    assert call(*arguments) == 2
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1


def test_failures_have_exit_code_1(capsys, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("request 3: class 4")

    monkeypatch.setattr("fluidnpu.sim.demonstration.demonstrate", fail)
    assert call("sim") == 1
    assert "request 3: class 4" in capsys.readouterr().err


def descriptors_of(program):
    words = np.frombuffer(program.region, "<u4", len(program.ops) * isa.DESCRIPTOR_WORDS)
    return [isa.decode(isa.DESCRIPTOR_FIELDS, w) for w in words.reshape(len(program.ops), -1)]


def test_compile(tmp_path, capsys):
    path = tmp_path / "digits.fnp"
    assert call("compile", NETWORK, "--config", "tiny", "--out", path) == 0
    program = Program.load(path)
    text = capsys.readouterr().out
    assert all(op.name in text for op in program.ops)
    assert program.config_name == "tiny" and len({e.limit for e in program.exits}) == 1
    single = {d["single_rounding"] for d in descriptors_of(program)}
    assert call("compile", NETWORK, "--config", "tiny", "--out", path, "--rounding", "micro") == 0
    double = {d["single_rounding"] for d in descriptors_of(Program.load(path))}
    assert (single, double) == ({0, 1}, {0})  # FULLY_CONNECTED rounds once, or twice


def test_verilog(tmp_path, capsys):
    assert call("verilog", "--config", "tiny", "--out", tmp_path) == 0
    files = capsys.readouterr().out.split()
    assert files == [str(tmp_path / "tiny" / n) for n in ("npu.v", "npu.json")]
    ports = json.loads((tmp_path / "tiny" / "npu.json").read_text())["ports"]
    verilog = (tmp_path / "tiny" / "npu.v").read_text()
    head = re.search(r"^module npu\((.*?)\);", verilog, re.M | re.S).group(1).replace("\\", "").split(",")
    assert {p["name"] for p in ports} == {name.strip() for name in head}


def test_report_reads_records(tmp_path, capsys):
    (tmp_path / "records.pickle").write_bytes(b"nonsense")
    assert call("report", "--out", tmp_path) == 2
    assert "no records of this version" in capsys.readouterr().err


def test_lint_sees_what_matters():
    bad = """
module npu(clk, a, b);
  input clk; input [3:0] a; output reg [3:0] b;
  reg [3:0] c;
  always @(posedge clk) c <= a;
  always @(posedge clk) b <= a + c;
  always @* c = a;
endmodule
"""
    complaints = lint_verilog(bad)
    assert "MULTIDRIVEN" in complaints or "BLKANDNBLK" in complaints
    good = bad.replace("  always @* c = a;\n", "")
    assert lint_verilog(good) == ""
    assert "DECLFILENAME" not in lint_verilog(good) and WAIVERS.exists()
    assert "syntax error" in lint_verilog("module npu(;")


def test_lint_reports(capsys, monkeypatch, tmp_path):
    (tmp_path / "npu.v").write_text("module npu(; endmodule")
    monkeypatch.setattr("fluidnpu.sim.npu_build.cached_verilog", lambda config: tmp_path / "npu.v")
    assert call("lint", "--config", "tiny") == 1
    assert "%Error" in capsys.readouterr().err


def test_limits_of():
    assert limits_of([0.8], 3) == limits_of([0.8, 0.8, 0.8], 3)
    assert limits_of([0.5, 2.0], 3)[:2] == (1 << 17, 0)
    with pytest.raises(InputError, match="2 thresholds for 4 exits"):
        limits_of([0.5, 0.5], 4)


def test_read_images(tmp_path):
    x = np.array([0, 128, 255, 7], np.uint8).reshape(4, 1, 1)
    np.savez(tmp_path / "a.npz", x=x, y=np.array([1, 2, 3, 4]))
    images, labels = read_images(tmp_path / "a.npz", (1, 1, 1))
    assert images.reshape(-1).tolist() == [-128, 0, 127, -121] and images.shape == (4, 1, 1, 1)
    assert labels.tolist() == [1, 2, 3, 4]
    np.savez(tmp_path / "b.npz", x=images)
    assert np.array_equal(read_images(tmp_path / "b.npz", (1, 1, 1))[0], images)
    assert read_images(tmp_path / "b.npz", (1, 1, 1))[1] is None


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": np.zeros(3)}, "there is no array x"),
        (
            {"x": np.zeros((2, 1, 1, 1))},
            r"x is float64 \[2, 1, 1, 1\], it must be uint8 or int8 \[at least 1, 1, 1, 1\]",
        ),
        ({"x": np.zeros((2, 3, 3, 1), np.int8)}, r"x is int8 \[2, 3, 3, 1\]"),
        ({"x": np.zeros((0, 1, 1, 1), np.int8)}, r"x is int8 \[0, 1, 1, 1\]"),
        ({"x": np.zeros((2, 1, 1, 1), np.int8), "y": np.zeros(3, int)}, r"y is int64 \[3\], it must be whole numbers"),
        ({"x": np.array([object()])}, "not an .npz file of arrays"),
    ],
)
def test_bad_images(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_images(tmp_path / "bad.npz", (1, 1, 1))


def test_files_that_are_no_npz(tmp_path):
    for name, content in (("text.npz", b"hello"), ("empty.npz", b""), ("zip.npz", b"PK\x03\x04broken")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: not an [.]npz"):
            read_images(tmp_path / name, (1, 1, 1))
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"not an \.npz file"):
        read_images(tmp_path / "plain.npy", (1, 1, 1))


def test_windows():
    assert window_of("5:") == (5, None) and window_of(":7") == (0, 7) and window_of(None) is None


def test_make_network(tmp_path, capsys):
    out = tmp_path / "nets" / "kws.tflite"
    assert call("make-network", "ds-cnn", "-o", out, "--exit-after", 2) == 0
    assert "2,657,536 MACs, 2 exits" in capsys.readouterr().out
    assert len(read_network(out).exits) == 2
    assert call("make-network", "vgg", "-o", out) == 2
    assert "unknown network 'vgg'; there are resnet50" in capsys.readouterr().err
