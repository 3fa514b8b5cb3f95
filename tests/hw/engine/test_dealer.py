"""Dealer against sim.engine_layers.deal_subtiles: fragments, positions, sub-tiles, cycles."""

import random
from dataclasses import dataclass, replace

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.engine.dealer import Dealer
from fluidnpu.hw.isa import NO_PRODUCER, PC_INDEX_BITS, VARIANTS
from fluidnpu.sim.engine_layers import Cursor, Layer, Variant, deal_subtiles


@dataclass
class Case:
    """A layer and a slot table. ``seg_w``, ``out_w``: pixels of a line and of a row."""

    layer: Layer
    seg_w: int
    out_w: int
    program: int
    order: list
    dealable: list
    ride: list
    priority: list
    pc: list
    line: list
    done: list
    leader: int
    unstacked: bool

    def descriptor(self):
        layer = self.layer
        values = {name: getattr(layer, name) for name in ("lines", "in_h", "kh", "sy", "pad_top", "nseg")}
        values |= {"producer": layer.producer, "producer_nseg": layer.producer_nseg}
        values |= {"seg_w": self.seg_w, "out_w": self.out_w}
        if layer.residual is not None:
            values |= {"residual": 1, "res_producer": layer.residual[0], "res_producer_nseg": layer.residual[1]}
        values["vsel"] = sum(v << 2 * n for n, v in enumerate(layer.vsel))
        for v, variant in enumerate(layer.variants):
            values |= {
                f"log2_kr{v}": variant.kr.bit_length() - 1,
                f"max_lines{v}": variant.max_lines,
                f"stripe_lines{v}": variant.stripe_lines,
            }
        return values


def random_layer(rng, config):
    rows = rng.choice([1, 2, 5, 9, 16, 4000])
    kh = rng.choice([1, 1, 2, 3, 3, 5, 7])
    nseg = rng.choice([1, 1, 1, 2, 3])
    stacks = [1 << k for k in range(config.max_stack.bit_length())]
    variants = tuple(
        Variant(
            kr=rng.choice(stacks),
            max_lines=1 if nseg > 1 else rng.randint(1, config.max_lines),
            stripe_lines=kh + rng.choice([0, 1, 3, 8, 40, 60000]),
        )
        for _ in range(VARIANTS)
    )
    producer = rng.choice([NO_PRODUCER, 0, 5, 0x3FFE])
    residual = rng.choice([None, None, None, (NO_PRODUCER, 1), (producer & 0x3FFE, 1), (0, 2), (5, 3)])
    return Layer(
        rows * nseg, rng.choice([1, rows, 4095]), kh, rng.choice([1, 1, 2, 3, 255]), rng.choice([0, 0, 1, kh - 1, 255]),
        nseg, producer, rng.choice([1, 1, 2, 3]), variants, tuple(rng.randrange(VARIANTS) for _ in range(16)), residual,
    )  # fmt: skip


def random_case(rng, config):
    layer = random_layer(rng, config)
    seg_w = rng.randint(1, config.rows // max(v.max_lines for v in layer.variants))
    out_w = seg_w if layer.nseg == 1 else (layer.nseg - 1) * seg_w + rng.randint(1, seg_w)
    program = rng.randrange(4)
    n = config.slots
    order = rng.sample(range(n), rng.randint(1, n))
    here = program << PC_INDEX_BITS | 6
    elsewhere = rng.random() < 0.3
    pc = [rng.choice([here, here, here, here + 1]) if elsewhere else here for _ in range(n)]
    ending = max(0, layer.lines - rng.choice([1, 3, 10]))  # the usual case is a layer that is nearly complete
    line = [rng.choice([0, ending, rng.randrange(layer.lines)]) if rng.random() < 0.7 else 0 for _ in range(n)]
    ranks = rng.choice([(1,), (1, 2), range(256)])
    producer = program << PC_INDEX_BITS | (layer.producer & 0x3FFF)
    most = min(65535, layer.in_h * layer.producer_nseg)
    done = [
        (max(0, producer + rng.choice([-1, 0, 0, 0, 1])), rng.choice([0, rng.randint(0, min(most, 40)), most]))
        for _ in range(n)
    ]
    dealable = [s for s in order if rng.random() < 0.85] or [order[0]]
    priority = [rng.choice(ranks) for _ in range(n)]
    leader = rng.choice([s for s in dealable if priority[s] == max(priority[t] for t in dealable)])
    pc[leader] = here
    ride = [rng.random() < 0.8 for _ in range(n)]
    return Case(
        layer, seg_w, out_w, program, order, dealable, ride, priority, pc, line, done, leader, rng.random() < 0.2
    )


def available(case, s):
    """Lines of candidate ``s`` that may be dealt, from single input rows."""
    layer, count = case.layer, 0
    if case.priority[s] >= case.priority[case.leader]:
        return layer.lines - case.line[s]
    for line in range(case.line[s], layer.lines):
        # padding below the image is clipped; a window above the image still asks for the rows up to its end
        row = line // layer.nseg
        last = min(layer.in_h - 1, row * layer.sy - layer.pad_top + layer.kh - 1)
        reads = [(last, layer.producer, layer.producer_nseg)]
        if layer.residual is not None:
            reads.append((row, *layer.residual))
        for row, producer, nseg in reads:
            position = case.program << PC_INDEX_BITS | producer, (row + 1) * nseg - 1
            if producer != NO_PRODUCER and position >= case.done[s]:
                return count
        count += 1
    return count


def expected(case):
    """What the dealer has to do: (fragments, issued positions by slot, outputs that are valid from done on)."""
    layer = case.layer
    same = [s for s in case.dealable if case.ride[s] and case.pc[s] == case.pc[case.leader] and s != case.leader]
    candidates = [case.leader, *sorted(same, key=case.order.index)]
    index = 0 if case.unstacked else layer.variant_index(len(candidates))
    variant = layer.variants[index]
    cursors = [Cursor(s, case.line[s], available(case, s)) for s in candidates]
    subtiles = deal_subtiles(layer, variant, variant.kr, cursors)
    flat = [(r, f) for r, subtile in enumerate(subtiles) for f in subtile]
    fragments, issued = [], {}
    for r, f in flat:
        fragments.append((f.slot, r, f.first, f.first // layer.nseg, f.first % layer.nseg, f.lines))
        issued[f.slot] = f.first + f.lines

    def width(line):
        return case.out_w - case.seg_w * (layer.nseg - 1) if line % layer.nseg == layer.nseg - 1 else case.seg_w

    lines = [sum(f.lines for f in subtile) for subtile in subtiles]
    rows = [sum(width(f.first + i) for f in subtile for i in range(f.lines)) for subtile in subtiles]
    outputs = {
        "members": sum(1 << s for s in issued),
        "candidates": sum(1 << s for s in candidates),
        "variant": index,
        "fragments": len(fragments),
        "longest": max(lines),
        "log2_kr": variant.kr.bit_length() - 1,
        "sub_lines": lines,
        "sub_rows": rows,
    }
    below = {s for s in candidates if case.priority[s] < case.priority[case.leader]}
    late = sum(f.lines for _, f in flat if f.slot in below)
    checks = 2 if layer.residual is None else 4  # cycles of a look whether the inputs are there
    bound = len(case.order) + sum(lines) + 2 * len(candidates) + variant.kr + 4 + checks * (late + len(below))
    return fragments, issued, outputs, bound


def apply(ctx, dealer, case, config):
    ctx.set(dealer.layer, case.descriptor())
    for name in ("leader", "program", "unstacked"):
        ctx.set(getattr(dealer, name), getattr(case, name))
    ctx.set(dealer.count, len(case.order))
    ctx.set(dealer.dealable, sum(1 << s for s in case.dealable))
    ctx.set(dealer.ride, sum(ride << s for s, ride in enumerate(case.ride)))
    for i, s in enumerate(case.order):
        ctx.set(dealer.order[i], s)
    for s in range(config.slots):
        ctx.set(dealer.priority[s], case.priority[s])
        ctx.set(dealer.pc[s], case.pc[s])
        ctx.set(dealer.line[s], case.line[s])
        ctx.set(dealer.row[s], case.line[s] // case.layer.nseg)
        ctx.set(dealer.seg[s], case.line[s] % case.layer.nseg)
        ctx.set(dealer.done_pc[s], case.done[s][0])
        ctx.set(dealer.done_line[s], case.done[s][1])


async def deal(ctx, dealer):
    """One deal; returns (fragments by index order, issued positions, cycles from go to done)."""
    ctx.set(dealer.go, 1)
    await ctx.tick()
    ctx.set(dealer.go, 0)
    fragments, issued, cycles, done = [], {}, 0, False
    while not done:
        cycles += 1
        assert cycles < 2000, "no end"
        valid, index, f, moves, slot, line, row, seg, complete, done = (
            await ctx.tick().sample(
                dealer.fragment_valid, dealer.fragment_index, dealer.fragment, dealer.issue_valid, dealer.issue_slot,
                dealer.issue_line, dealer.issue_row, dealer.issue_seg, dealer.issue_complete, dealer.done,
            )
        )[2:]  # fmt: skip
        if valid:
            assert index == len(fragments)
            fragments.append((f.slot, f.sub_tile, f.line, f.row, f.seg, f.lines))
        if moves:
            assert slot not in issued, f"slot {slot} is issued twice"
            issued[slot] = (line, row, seg, complete)
    return fragments, issued, cycles


@pytest.mark.parametrize(
    "slots, max_stack, max_lines, rows", [(2, 1, 2, 8), (4, 4, 8, 32), (8, 4, 32, 128), (16, 8, 64, 256)]
)
def test_random(slots, max_stack, max_lines, rows):
    config = replace(CONFIGS["hub"], slots=slots, max_stack=max_stack, max_lines=max_lines, rows=rows)
    rng = random.Random(f"dealer {slots} {max_stack}")
    dealer = Dealer(config)
    seen = {"late": 0, "stripes": 0, "split": 0, "complete": 0, "bound": 0}

    async def bench(ctx):
        for number in range(300):
            case = random_case(rng, config)
            while not available(case, case.leader):
                case = random_case(rng, config)
            apply(ctx, dealer, case, config)
            want, ends, outputs, bound = expected(case)
            fragments, issued, cycles = await deal(ctx, dealer)
            where = f"case {number}: {case}"
            assert fragments == want, where
            layer = case.layer
            moves = {s: (end, end // layer.nseg, end % layer.nseg, end == layer.lines) for s, end in ends.items()}
            assert issued == moves, where
            for name, value in outputs.items():
                got = getattr(dealer, name)
                if isinstance(value, list):
                    value = value + [0] * (config.max_stack - len(value))
                    assert [ctx.get(got[r]) for r in range(config.max_stack)] == value, f"{name}, {where}"
                else:
                    assert ctx.get(got) == value, f"{name}, {where}"
            assert cycles <= bound, f"{cycles} cycles, at most {bound}: {where}"
            seen["bound"] += cycles == bound
            left = {s: layer.lines - line for s, line in enumerate(case.line)}
            seen["late"] += any(end - case.line[s] == available(case, s) < left[s] for s, end in ends.items())
            seen["split"] += len(fragments) > len(ends)
            seen["complete"] += any(end == layer.lines for end in ends.values())
            seen["stripes"] += sum(outputs["sub_lines"]) < min(
                sum(layer.lines - case.line[s] for s in ends), layer.variants[outputs["variant"]].max_lines
            )

    sim = Simulator(dealer)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert all(count for name, count in seen.items() if config.max_stack > 1 or name not in ("split", "late")), seen
