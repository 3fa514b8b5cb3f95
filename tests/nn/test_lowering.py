"""Order of operations, jumps, split layers."""

from dataclasses import replace

from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import Op
from fluidnpu.nn.graph import Exit, Mean, Network, Pool, Tensor
from fluidnpu.nn.lowering import geometry_of, lower
from small_layers import conv

TINY = get_config("tiny")


def tensor(name, height, width, channels):
    return Tensor(name, height, width, channels, 0.5, 3)


def network():
    """x - c0 (head h0, jump) - c1 - m - f: two exits."""
    x, a, b, m = tensor("x", 6, 6, 3), tensor("a", 4, 4, 9), tensor("b", 2, 2, 9), tensor("m", 1, 1, 9)
    first, last = tensor("l0", 1, 1, 4), tensor("l1", 1, 1, 4)
    layers = (
        conv("c0", x, a),
        conv("h0", a, first),
        conv("c1", a, b),
        Mean("mean", b, m, 0, 1 << 30, -2),
        conv("f", m, last),
    )
    return Network("net", x, layers, (Exit(first), Exit(last)))


def test_order_and_jumps():
    steps = lower(network(), TINY, 1 << 30)
    assert [(s.op.name, s.name, s.exit, s.head, s.target) for s in steps] == [
        ("CONV", "c0", -1, -1, 0),
        ("JUMP", "jump0", 0, -1, 4),
        ("CONV", "h0", -1, 0, 0),
        ("EXIT", "exit0", 0, 0, 0),
        ("CONV", "c1", -1, -1, 0),
        ("POOL", "mean", -1, -1, 0),
        ("CONV", "f", -1, -1, 0),
        ("EXIT", "exit1", 1, -1, 0),
    ]


def test_long_tiles_are_split():
    """Into whole staging chunks (64 channels on tiny), as many parts as it takes; pools stay whole."""
    x, y, z = tensor("x", 1, 1, 8), tensor("y", 1, 1, 200), tensor("z", 1, 1, 2)
    net = Network("wide", x, (conv("wide", x, y), conv("f", y, z)), (Exit(z),))
    # a tile of 64 channels takes 8 c-tiles of one step: 8 weight beats and 16 of parameters
    for longest, bounds in (
        (1000, [(0, 200)]),
        (599, [(0, 128), (128, 200)]),
        (383, [(0, 64), (64, 128), (128, 192), (192, 200)]),
        (1, [(0, 128), (128, 200)]),  # never short enough: 3 parts would read 1.5 % of the weights again
    ):
        steps = [s for s in lower(net, TINY, longest) if s.layer is not None and s.layer.name == "wide"]
        assert [s.channels for s in steps] == bounds, longest
        names = ["wide"] if len(bounds) == 1 else [f"wide.{i}" for i in range(len(bounds))]
        assert [s.name for s in steps] == names
    pool = Pool("p", y, replace(y, name="z"), window=(1, 1), stride=(1, 1))
    net = Network("pool", x, (conv("wide", x, y), pool), (Exit(pool.output),))
    assert [s.channels for s in lower(net, TINY, 1) if s.op == Op.POOL] == [(0, 200)]


def test_fully_connected_is_not_cut_in_vain():
    """2048 to 1000 on hub: 8 parts of 8,256 cycles where that is short enough; else as many as cost 1.5 % in reads."""
    hub = get_config("hub")
    x, y = tensor("x", 1, 1, 2048), tensor("y", 1, 1, 1000)
    net = Network("fc", x, (conv("fc", x, y),), (Exit(y),))

    def parts(config, longest):
        return len([s for s in lower(net, config, longest) if s.op == Op.CONV])

    assert parts(hub, 8300) == 8 and parts(hub, 70_000) == 1
    # 64,500 beats of weights; all 16 slots' inputs are 1,024: 1.6 %
    assert parts(hub, 2400) == 1
    assert parts(replace(hub, slots=8), 2400) == 2  # half as much to read again
    image, made, mean = tensor("x", 5, 5, 2048), tensor("m", 5, 5, 1000), tensor("y", 1, 1, 1000)
    net = Network("conv", image, (conv("fc", image, made), Mean("mean", made, mean, 0, 1 << 30, -5)), (Exit(mean),))
    assert parts(hub, 2400) == 8  # 400 rows are two tiles: rows count, not weights alone


def test_geometry():
    g = geometry_of(network().layers[0], TINY)
    assert (g.pool, g.kh, g.kw, g.in_w, g.in_pixel_beats, g.in_words, g.out_pixel_beats) == (False, 3, 3, 6, 1, 1, 2)
    x, y = tensor("x", 4, 4, 3), tensor("y", 4, 4, 3)
    pool = Pool("p", x, y, window=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
    assert geometry_of(pool, TINY).pool and geometry_of(pool, TINY).vector and not g.vector
