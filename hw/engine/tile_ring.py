"""The announced tile as its users see it, and the ring of started tiles."""

from amaranth.hdl import Array, Mux, Signal
from amaranth.utils import exact_log2

from .. import isa
from ..tile import ADDITION_FIELDS

__all__ = ["connect_tile"]


def connect_tile(m, engine):
    """Describe the announced tile to the blocks that work on it; start it; count the slots' tiles under way.

    Called by Engine.elaborate, whose signals it drives: next_*, post, write, start; members, running_members,
    context_members (slots of the announced tile, of the one started last, of each context), outstanding, half.
    """
    config, layer, lay = engine.config, engine.layer, engine.layouts
    wpb = exact_log2(config.words_per_beat)
    v = engine.dealer.variant
    kr, kd = Signal(lay.log2_stack), Signal(lay.log2_stack)
    words = Signal(10)
    with m.Switch(v):
        for i in range(isa.VARIANTS):
            with m.Case(i):
                m.d.comb += [
                    kr.eq(layer[f"log2_kr{i}"]),
                    kd.eq(layer[f"log2_kd{i}"]),
                    words.eq(layer[f"words{i}"]),
                    engine.next_weights.eq(
                        Array(engine.program_base)[engine.next_program] + layer[f"weights{i}"],
                    ),
                    engine.next_weight_beats.eq(layer[f"weight_beats{i}"]),
                ]
    engine.half = Signal()
    t, dealer = engine.next_tile, engine.dealer
    vector = (layer.op == isa.Op.POOL) | (layer.op == isa.Op.DEPTHWISE)
    m.d.comb += [
        engine.next_program.eq(engine.leader_pc[isa.PC_INDEX_BITS :]),
        engine.next_fragments.eq(dealer.fragments),
        t.context.eq(engine.context),
        t.half.eq(engine.half),
        t.vector.eq(vector),
        t.pool.eq(layer.op == isa.Op.POOL),
        t.maximum.eq(layer.maximum),
        t.twice.eq(layer.twice),
        t.log2_kr.eq(kr),
        t.log2_kd.eq(kd),
        t.lines.eq(dealer.longest),
        t.sub_lines.eq(dealer.sub_lines),
        *(t[name].eq(layer[name]) for name in ("seg_w", "kh", "kw", "sx", "in_w", "in_h", "in_zero")),
        t.out_channels.eq(layer.out_channels),
        t.words.eq(words),
        t.pixel_words.eq(Mux(layer.in_packed & (wpb > 0), 1, (layer.in_pixel_beats << wpb) >> kd)),
        t.line_words.eq((layer.stripe_line_beats << wpb) >> kd),
    ]
    p = engine.post.p
    m.d.comb += [
        p.log2_kr.eq(kr),
        p.log2_kd.eq(kd),
        p.sub_rows.eq(dealer.sub_rows),
        p.vector.eq(vector),
        p.words.eq(words),
        p.pool.eq(layer.op == isa.Op.POOL),
        p.packed.eq(layer.out_packed),
        *(
            p[name].eq(layer[name])
            for name in (
                "out_channels out_zero clamp_min clamp_max single_rounding average padded_average half_up "
                "bias multiplier shift chunk_beats residual"
            ).split()
        ),
        *(p[f.name].eq(layer[f.name]) for f in ADDITION_FIELDS),
    ]
    w = engine.write.p
    m.d.comb += [
        w.context.eq(engine.context),
        w.log2_kr.eq(kr),
        w.fragments.eq(dealer.fragments),
        w.pc.eq(engine.leader_pc),
        *(
            w[name].eq(layer[name])
            for name in ("lines nseg out_offset out_line_beats out_pixel_beats out_channels chunk_beats").split()
        ),
        # Packed pixels are written by whole beats: to the writer a row of fewer pixels
        w.packed.eq(layer.out_packed),
        *(w[name].eq(layer[name] >> Mux(layer.out_packed, wpb, 0)) for name in ("seg_w", "out_w")),
    ]
    engine.outstanding = Signal(range(config.trackers + 1))
    engine.members = Signal(config.slots)  # of the announced, or the last revoked tile
    engine.running_members = Signal(config.slots)  # of the tile started last
    engine.context_members = Array(Signal(config.slots, name=f"members_{i}") for i in range(config.contexts))
    engine.dropping = Signal()
    engine.may_start = Signal()
    room = engine.outstanding < config.trackers
    ready = engine.loaded & room & engine.post.ready & engine.write.ready & ~engine.resetting
    m.d.comb += [
        engine.start_valid.eq(engine.announced & ready & engine.may_start),
        engine.start.eq(engine.start_valid & engine.start_ready),
        engine.post.valid.eq(engine.start),
        engine.write.valid.eq(engine.start),
        engine.blocked_output.eq(engine.announced & engine.loaded & ~(room & engine.post.ready & engine.write.ready)),
    ]
    engine.retire = Signal()
    retired = Signal(config.slots)
    m.d.comb += retired.eq(Mux(engine.retire, engine.context_members[engine.write_event.p.context], 0))
    started = Mux(engine.start, engine.members, 0)
    for s, tiles in enumerate(engine.slots.tiles):
        m.d.sync += tiles.eq(tiles + started[s] - retired[s])
    m.d.sync += engine.outstanding.eq(engine.outstanding + engine.start - engine.retire)
    with m.If(engine.start):
        m.d.sync += [
            engine.announced.eq(0),
            engine.slots.in_next.eq(0),
            engine.running_members.eq(engine.members),
            engine.context_members[engine.context].eq(engine.members),
            engine.context.eq(Mux(engine.context == config.contexts - 1, 0, engine.context + 1)),
            engine.half.eq(~engine.half),
        ]
