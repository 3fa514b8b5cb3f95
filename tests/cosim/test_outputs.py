"""Networks without exits: every output tensor is in memory when the completion comes."""

import numpy as np
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from fluidnpu.sim.session import Setup, serve_trace
from fluidnpu.sim.traffic import make_trace
from networks import compiled
from npu_checks import run_checked
from scenarios import samples_of, scenario

SEED = 77


def convolution(net, rng, x, channels, kernel, **options):
    weights = rng.integers(-127, 128, (channels, *kernel, x.shape[3])).astype(np.int8)
    bias = rng.integers(-500, 500, channels).astype(np.int32)
    return net.conv_2d(x, weights, bias, 0.004, scale=0.2, zero_point=int(rng.integers(-20, 20)), **options)


def two_images(rng):
    """A network with two outputs, 9 x 7 x 12 and 4 x 3 x 5, and a tensor between them."""
    net = TfliteWriter("two images")
    x = net.input((1, 9, 7, 3), scale=0.1, zero_point=int(rng.integers(-128, 128)))
    first = convolution(net, rng, x, 12, (3, 3))
    second = convolution(net, rng, net.average_pool_2d(first, 2), 5, (1, 3), activation="RELU")
    return parse_network(net.to_bytes([first, second]), "two_images.tflite")


def test_every_byte(tiny):
    config, build = tiny
    cases = []
    for seed, reuse in ((SEED, False), (SEED + 1, True)):
        rng = np.random.default_rng(seed)
        programs = [compiled(two_images(rng), config, rng, reuse_arena=reuse)]
        samples = samples_of(programs, 6, rng)
        cases.append((programs, scenario(config, programs, seed, samples=samples, together=True)))
    for _, outcome in run_checked(config, build, cases):
        assert all(a.completion["exit"] == a.completion["top"] == 0 for a in outcome["admissions"])


def test_served_with_every_output_compared(tiny):
    config, build = tiny
    rng = np.random.default_rng(SEED)
    network = two_images(rng)
    program = compile_network(network, config, CompileOptions())
    assert program.has_no_exits and len(program.outputs) == 2
    images = rng.integers(-128, 128, (5, *network.input.shape)).astype(np.int8)
    trace = make_trace("at once", [20_000] * 5, images)
    record = serve_trace(Setup(config, build, network, program), trace, "fluid")
    assert [r.status for r in record.results] == ["ok"] * 5
