"""What a dealt tile tells the blocks that work on it, and the payloads that pass between those blocks.

The engine announces a tile to the stripe loader, the weight streamer and the array; when it starts, the epilogue
and the output writer receive their share. Widths derive from the configuration alone.
"""

from amaranth.hdl import signed
from amaranth.lib import data
from amaranth.utils import bits_for, ceil_log2

from . import isa

__all__ = [
    "ADDITION_FIELDS",
    "DIMENSION_BITS",
    "PARAMETER_BYTES",
    "RMW_DISTANCE",
    "VECTOR_TAPS",
    "Layouts",
    "descriptor_layout",
]

DIMENSION_BITS = 12  # image rows and columns: at most 4095
RMW_DISTANCE = 2  # cycles between an accumulator's read and the next one that may see its write: least of a step
PARAMETER_BYTES = 16  # bias int32, multiplier int32, shift int8, 7 unused: one output channel's requantiser
ADDITION_FIELDS = tuple(f for f in isa.DESCRIPTOR_FIELDS if f.name.startswith("add_"))  # what the epilogue adds with
VECTOR_TAPS = 127  # most taps of a DEPTHWISE window: half a lane PE's weight memory, whose last word holds ones


def descriptor_layout():
    """The descriptor as one struct whose members are isa.DESCRIPTOR_FIELDS."""
    fields = {
        f.name: data.Field(signed(f.width) if f.signed else f.width, 32 * f.word + f.lsb) for f in isa.DESCRIPTOR_FIELDS
    }
    return data.FlexibleLayout(32 * isa.DESCRIPTOR_WORDS, fields)


class Layouts:
    """Payload layouts of one configuration."""

    def __init__(self, config):
        self.config = c = config
        stack_bits = ceil_log2(c.max_stack)
        self.context = ceil_log2(c.contexts)
        self.slot = ceil_log2(c.slots)
        self.log2_stack = bits_for(stack_bits)
        self.sub_tile = max(1, stack_bits)  # index of a sub-tile or of a physical bank
        self.line_count = bits_for(c.max_lines)
        self.row_count = bits_for(c.rows)
        self.word_address = ceil_log2(c.bank_bytes // c.lanes)  # of a stack that owns every bank
        self.bank_address = ceil_log2(c.bank_beats)  # beats, within one half of one bank
        self.fragment_index = ceil_log2(c.fragments)
        self.vector_columns = c.max_stack * max(c.lanes, c.post_lanes)  # of a block's parameters

        # A run of lines of one slot in one sub-tile. row, seg: of its first line.
        self.fragment = data.StructLayout(
            {
                "slot": self.slot,
                "sub_tile": self.sub_tile,
                "line": 16,
                "row": DIMENSION_BITS,
                "seg": 8,
                "lines": self.line_count,
            }
        )
        # One line of a sub-tile as the address generators see it. base: word address of the tap (0, 0) of pixel 0,
        # modulo 2**word_address (it may lie in front of the stripe); y_top, x_left: image position of that tap.
        self.line = data.StructLayout(
            {
                "base": self.word_address,
                "y_top": signed(DIMENSION_BITS + 2),
                "x_left": signed(DIMENSION_BITS + 2),
                "width": self.row_count,
            }
        )
        self.array_tile = data.StructLayout(
            {
                "context": self.context,
                "half": 1,  # of the banks and the line tables
                "vector": 1,  # DEPTHWISE, POOL: words outside, then rows, taps inside
                "pool": 1,  # POOL: all weights are 1, there is no weight stream
                "maximum": 1,  # POOL: the largest tap instead of the sum
                "twice": 1,  # every word takes two steps, DEPTHWISE: every tap two cycles
                "log2_kr": self.log2_stack,
                "log2_kd": self.log2_stack,
                "lines": self.line_count,  # of the longest sub-tile
                "sub_lines": data.ArrayLayout(self.line_count, c.max_stack),  # of sub-tile r (0: none)
                "seg_w": self.row_count,
                "kh": 8,
                "kw": 8,
                "sx": 8,
                "words": 10,  # per tap and stack
                "pixel_words": 10,  # from one pixel to the next in a stack's stripe
                "line_words": self.word_address,  # from one stripe line to the next
                "in_w": DIMENSION_BITS,
                "in_h": DIMENSION_BITS,
                "in_zero": signed(8),
                "out_channels": 16,
            }
        )
        self.post_tile = data.StructLayout(
            {
                "log2_kr": self.log2_stack,
                "log2_kd": self.log2_stack,
                "sub_rows": data.ArrayLayout(self.row_count, c.max_stack),  # rows of sub-tile r (0: none)
                "out_channels": 16,
                "out_zero": signed(8),
                "clamp_min": signed(8),
                "clamp_max": signed(8),
                "single_rounding": 1,
                "vector": 1,  # DEPTHWISE, POOL: results come row by row, without jobs
                "words": 10,  # blocks of a vector tile
                "packed": 1,  # a pixel is one word, a beat holds as many pixels as words
                "pool": 1,  # requantiser below instead of the per-channel parameters
                "average": 1,
                "padded_average": 1,
                "half_up": 1,
                "bias": signed(32),
                "multiplier": 32,
                "shift": signed(8),
                "chunk_beats": 8,
                "residual": 1,  # what follows: the addition of the second operand, named as in the descriptor
                **{f.name: signed(f.width) if f.signed else f.width for f in ADDITION_FIELDS},
            }
        )
        self.write_tile = data.StructLayout(
            {
                "context": self.context,
                "log2_kr": self.log2_stack,
                "fragments": bits_for(c.fragments),
                "pc": 16,
                "lines": 16,  # of the layer
                "nseg": 8,
                "packed": 1,  # seg_w and out_w count beats, each of them as many pixels as words
                "seg_w": self.row_count,
                "out_w": DIMENSION_BITS,
                "out_offset": 32,
                "out_line_beats": 16,
                "out_pixel_beats": 16,
                "out_channels": 16,
                "chunk_beats": 8,
            }
        )
        # A c-tile whose sums are complete in accumulator bank ``bank``.
        self.drain_job = data.StructLayout({"bank": 1, "last": 1})
        # A chunk in staging half ``half``, complete or (counted by ``staged``) on its way.
        self.chunk = data.StructLayout({"half": 1, "last": 1, "complete": 1})
        # Bank write: a beat into every bank of ``banks``; line write: an entry into every line table of ``banks``.
        self.fill = data.StructLayout(
            {"half": 1, "banks": c.max_stack, "address": self.bank_address, "data": 8 * c.bus_bytes}
        )
        self.line_write = data.StructLayout(
            {"half": 1, "banks": c.max_stack, "index": ceil_log2(c.max_lines), "line": self.line}
        )
        # A beat of a second operand for half ``half`` of the residual buffer.
        self.residual_write = data.StructLayout(
            {"half": 1, "address": ceil_log2(c.stage_beats), "data": 8 * c.bus_bytes}
        )
        # A row's last tap on the vector path: its results are there two cycles later. last: of its block.
        self.vector_row = data.StructLayout({"last": 1, "last_tile": 1})
        # Epilogue -> accumulators: values of columns quad * post_lanes + 0.. of sub-tile ``sub_tile``; vector: results
        # quad * post_lanes + 0.. of the lane PE of group ``sub_tile``.
        self.acc_request = data.StructLayout(
            {
                "vector": 1,
                "bank": 1,
                "sub_tile": self.sub_tile,
                "row": ceil_log2(c.rows),
                "quad": max(1, ceil_log2(c.pes // c.post_lanes)),
            }
        )
        self.acc_values = data.ArrayLayout(signed(32), c.post_lanes)
        self.parameter_quad = max(1, ceil_log2(max(c.pes, self.vector_columns) // c.post_lanes))
        # Parameters of a c-tile arrive as ``beat`` 0, 1, ... of PARAMETER_BYTES per column; those of a block's words
        # begin each at a new quad, so that a word narrower than post_lanes leaves a gap.
        columns = max(c.pes, self.vector_columns)
        self.parameter_write = data.StructLayout(
            {
                "vector": 1,
                "bank": 1,
                "beat": max(1, ceil_log2(columns * PARAMETER_BYTES // c.bus_bytes)),
                "data": 8 * c.bus_bytes,
            }
        )
        # One AXI read burst: legal by itself, space for its beats reserved. owner: slot (arena) or program.
        self.read_burst = data.StructLayout({"addr": 32, "beats": bits_for(c.burst_beats), "arena": 1, "owner": 4})
        self.read_beat = data.StructLayout({"data": 8 * c.bus_bytes, "error": 1})
        # Output writer -> engine. done: slot's position becomes (pc, line); retire: tile ``context`` is complete;
        # error: the slot failed with ``code``. Any of the three may come together.
        self.write_event = data.StructLayout(
            {
                "slot": self.slot,
                "context": self.context,
                "done": 1,
                "pc": 16,
                "line": 16,
                "retire": 1,
                "error": 1,
                "code": 4,
            }
        )
        self.event = data.StructLayout(
            {"valid": 1, "kind": 5, "slot": 4, "pc": 16, "line": 16, "data": 32, "data2": 32}
        )
