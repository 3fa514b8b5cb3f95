"""Operations that take the same time: an operation's *shape* is its descriptor without what time does not depend on.

Parts of a split layer, blocks of a network that repeat have few shapes. A shape says nothing about where its producers
are: whoever needs that asks `producer_token`.
"""

from collections import namedtuple

import numpy as np
from fluidnpu.hw.isa import DESCRIPTOR_BYTES, LAYERS, NO_PRODUCER, PC_INDEX_BITS, VARIANTS, Op

from .addresses import pixels_alike, settle
from .cache import PLACES, read_descriptor
from .interned import fits, intern, new_store
from .state import DESCRIPTOR, PROGRAMS, SCRATCH, compiled

__all__ = ["NO_SHAPE", "Shapes", "fetched_from", "new_shapes", "shape_of", "token"]

# Values and roundings of data; what is put in another form below
_NOT_TIME = """single_rounding average padded_average maximum half_up in_zero out_zero clamp_min clamp_max multiplier
shift stripe_line_beats out_h add_left_multiplier add_right_multiplier add_multiplier add_left_shift add_right_shift
add_shift add_zero add_left_zero add_right_zero add_clamp_min add_clamp_max"""
_OTHERWISE = "producer res_producer target in_offset out_offset res_offset weights bias"
NO_SHAPE = 0  # behind a program's end
THERE, IMAGE_INPUT = 1 << 29, 1 << 30  # further away than any producer
IMAGE = NO_PRODUCER
INDEX_BITS, INDEX_MASK = PC_INDEX_BITS, (1 << PC_INDEX_BITS) - 1
EXIT, JUMP = int(Op.EXIT), int(Op.JUMP)


def _kept():
    left_out, places, place = set((_NOT_TIME + " " + _OTHERWISE).split()), [], 0
    for name in DESCRIPTOR.names:
        size = DESCRIPTOR[name].itemsize // 8
        if name not in left_out:
            places += range(place, place + size)
        place += size
    assert place == len(PLACES) and left_out <= set(DESCRIPTOR.names)
    return np.array(places, np.int64)


KEPT = _kept()


Shapes = namedtuple("Shapes", "store known work")
Shapes.__doc__ += """: the shapes; known [pc, 4]: number (0: not yet), producers of the input and of the second operand,
is a layer; work, int32"""
MOST = 1 << 12


def new_shapes():
    """No shape is known."""
    known = np.zeros((PROGRAMS << INDEX_BITS, 4), np.int32)
    return Shapes(new_store(MOST, MOST * (len(PLACES) + 16)), known, np.zeros(len(PLACES) + 16, np.int32))


@compiled
def _place(m, d, offset, pixel_beats, line_beats):
    """Of the output's or the second operand's address what time depends on, if arenas begin with a page."""
    address, channels = offset // m.bus_bytes, (d.out_channels + m.bus_bytes - 1) // m.bus_bytes
    if pixels_alike(m, address, channels, d.chunk_beats, pixel_beats, line_beats, d.out_w, d.nseg == 1):
        return 0
    return address % m.page_beats


@compiled
def shape_of(m, pc, desc, flat, words, shapes):
    """Number of the shape of operation ``pc``, from 1; NO_SHAPE."""
    known = shapes.known
    if known[pc, 0]:
        return np.int64(known[pc, 0])
    program, index = pc >> INDEX_BITS, pc & INDEX_MASK
    if index >= m.program_ops[program]:
        return NO_SHAPE
    read_descriptor(m, pc, SCRATCH, flat, words)
    d, work, bus, n = desc[SCRATCH], shapes.work, m.bus_bytes, 0
    for i in range(len(KEPT)):
        work[n] = flat[SCRATCH, KEPT[i]]
        n += 1
    layer = d.op in LAYERS
    work[n] = d.target - index if d.op == JUMP else 0
    work[n + 1] = d.bias if d.op == EXIT else 0
    begin, row = d.in_offset // bus, d.in_w * d.in_pixel_beats
    if layer:
        work[n + 2] = settle(m, begin, row, d.in_line_beats) if d.nseg == 1 else begin % m.page_beats
        work[n + 3] = _place(m, d, d.out_offset, d.out_pixel_beats, d.out_line_beats)
        work[n + 4] = _place(m, d, d.res_offset, d.res_pixel_beats, d.res_line_beats) if d.residual else 0
    else:
        work[n + 2] = settle(m, begin, (d.out_channels + bus - 1) // bus, 0)
        work[n + 3] = work[n + 4] = 0
    n += 5
    for v in range(VARIANTS):
        work[n] = settle(m, (m.program_base[program] + d.weights[v]) // bus, d.weight_beats[v], 0) if layer else 0
        n += 1
    if not fits(shapes.store, n):
        return NO_SHAPE
    known[pc, 1], known[pc, 2], known[pc, 3] = d.producer, d.res_producer if d.residual else IMAGE, layer
    known[pc, 0] = intern(shapes.store, work, n) + 1
    return np.int64(known[pc, 0])


@compiled
def fetched_from(m, pc):
    """What the fetch of the descriptor of operation ``pc`` depends on."""
    address = m.program_base[pc >> INDEX_BITS] + (pc & INDEX_MASK) * DESCRIPTOR_BYTES
    return settle(m, address // m.bus_bytes, DESCRIPTOR_BYTES // m.bus_bytes, 0)


@compiled
def token(shapes, pc, column, base, written):
    """Where the producer of an input (column 1) or second operand (2) of ``pc``, whose shape is known, is: relative to
    operation ``base``; THERE if it stands before ``written``, in front of which everything is in memory."""
    producer = np.int64(shapes.known[pc, column])
    if producer == IMAGE:
        return IMAGE_INPUT
    place = pc & ~INDEX_MASK | producer & INDEX_MASK
    return THERE if place < written else place - base
