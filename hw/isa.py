"""What software and hardware must agree on: registers, commands, completions, descriptors, events.

Everything here is data. The register file, the engine's decoder, the driver, the compiler and docs/isa.md
derive from it; no other file knows a bit position.
"""

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "CAUSES",
    "COMMANDS",
    "COMMAND_WORDS",
    "COMPLETION_FIELDS",
    "COMPLETION_WORDS",
    "COUNTERS",
    "COUNTER_BITS",
    "DESCRIPTOR_BYTES",
    "DESCRIPTOR_FIELDS",
    "DESCRIPTOR_WORDS",
    "EXIT_TABLE_BYTES",
    "ISA_VERSION",
    "LAYERS",
    "LIMIT_ALWAYS",
    "LIMIT_NEVER",
    "MAGIC",
    "MAX_CLASSES",
    "NO_PRODUCER",
    "PC_INDEX_BITS",
    "RECIPROCAL_MAX",
    "RECIPROCAL_SHIFT",
    "REGISTERS",
    "REGISTER_ADDR_WIDTH",
    "REGISTER_FIELDS",
    "SLOT_WORDS",
    "SPREAD_NONE",
    "VARIANTS",
    "ArrayEvent",
    "Client",
    "Code",
    "EngineEvent",
    "Field",
    "IsaError",
    "Op",
    "Opcode",
    "Register",
    "Status",
    "decode",
    "encode",
    "make_pc",
    "register_address",
]  # fmt: skip

MAGIC = 0x464E5055  # "FNPU"
ISA_VERSION = 2


class IsaError(ValueError):
    """A value that does not fit its field."""


@dataclass(frozen=True)
class Field:
    """``width`` bits at bit ``lsb`` of 32-bit word ``word`` of a command, completion or descriptor."""

    name: str
    word: int
    lsb: int
    width: int
    signed: bool = False
    doc: str = ""

    @property
    def low(self):
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def high(self):
        return (1 << (self.width - self.signed)) - 1


def encode(fields, values, words, what):
    """Pack ``values`` (name -> int; absent = 0) into a list of ``words`` 32-bit words.

    Raises IsaError that names the field and its range for a value that does not fit or an unknown name.
    """
    known = {f.name: f for f in fields}
    packed = [0] * words
    for name, value in values.items():
        field = known.get(name)
        if field is None:
            raise IsaError(f"{what}: no field {name!r}; there are {', '.join(known)}")
        if not field.low <= value <= field.high:
            raise IsaError(f"{what}: {name} = {value} is not within {field.low}..{field.high}")
        packed[field.word] |= (int(value) & ((1 << field.width) - 1)) << field.lsb
    return packed


def decode(fields, words):
    """Unpack 32-bit words into a dict name -> int."""
    values = {}
    for f in fields:
        raw = (int(words[f.word]) >> f.lsb) & ((1 << f.width) - 1)
        values[f.name] = raw - (1 << f.width) if f.signed and raw >> (f.width - 1) else raw
    return values


# --- program counter ------------------------------------------------------------------------------------------

PC_INDEX_BITS = 14
NO_PRODUCER = 0xFFFF  # producer pc of a layer that reads the input image


def make_pc(program, index):
    """16-bit pc: program region in the upper bits, index of the operation below."""
    return (program << PC_INDEX_BITS) | index


# --- commands -------------------------------------------------------------------------------------------------


class Opcode(IntEnum):
    """Written to DOORBELL."""

    ADMIT = 1
    BATCH = 2
    LEAVE = 3
    CANCEL = 4
    LIMIT = 5
    FENCE = 6


_MASK = Field("slot_mask", 0, 0, 16, doc="bit s = slot s; slots that have left meanwhile are ignored")
COMMANDS = {
    Opcode.ADMIT: (
        Field("slot", 0, 0, 4, doc="a free slot"),
        Field("runnable", 0, 4, 1, doc="may get lines"),
        Field("ride", 0, 5, 1, doc="may ride along with a leader at the same pc"),
        Field("priority", 0, 8, 8, doc="higher leads"),
        Field("pc", 0, 16, 16, doc="program (2 bits) and index of the first operation"),
        Field("tag", 1, 0, 32, doc="returned with the completion"),
        Field("arena_base", 2, 0, 32, doc="byte address, a multiple of the bus width"),
        Field("arena_bytes", 3, 0, 32, doc="size of the arena"),
        Field("exits", 4, 0, 16, doc="bit e = exit e enabled"),
    ),
    Opcode.BATCH: (
        _MASK,
        Field("priority", 0, 16, 8, doc="higher leads"),
        Field("runnable", 0, 24, 1, doc="may get lines"),
        Field("ride", 0, 25, 1, doc="may ride along"),
        Field("commit", 0, 26, 1, doc="apply every recorded entry, this one included, in one cycle"),
    ),
    Opcode.LEAVE: (_MASK,),
    Opcode.CANCEL: (_MASK,),
    Opcode.LIMIT: (
        Field("program", 0, 0, 2, doc="program region"),
        Field("exit", 0, 8, 4, doc="exit of that program"),
        Field("limit", 1, 0, 32, doc="leave iff S <= limit; 0 never, all ones always"),
    ),
    Opcode.FENCE: (Field("tag", 1, 0, 32, doc="returned with the completion"),),
}
COMMAND_WORDS = 5

LIMIT_NEVER = 0
LIMIT_ALWAYS = 0xFFFFFFFF


class Status(IntEnum):
    """What a completion says."""

    OK = 0
    CANCELLED = 1
    FAILED = 2  # code says why
    ERROR = 3  # a command was wrong; code says why, the slot field repeats the command's slot
    FENCE = 4


class Code(IntEnum):
    """Why a command or a sample failed."""

    NONE = 0
    OPCODE = 1  # unknown opcode
    SLOT = 2  # no such slot
    OCCUPIED = 3  # the slot is live or its completion was not popped
    PC = 4  # program region or index out of range
    ARENA = 5  # empty, unaligned, or past the end of the address space
    EXIT = 6  # LIMIT: no such program or exit
    DESCRIPTOR = 8  # a descriptor broke a rule
    ADDRESS = 9  # a burst outside of the program region or the arena
    DESCRIPTOR_READ = 10  # error response
    STRIPE_READ = 11
    WEIGHT_READ = 12
    EXIT_READ = 13
    WRITE = 14
    RESIDUAL_READ = 15


COMPLETION_FIELDS = (
    Field("status", 0, 0, 4, doc="Status"),
    Field("slot", 0, 4, 4, doc="slot that was released"),
    Field("exit", 0, 8, 4, doc="exit that the sample took"),
    Field("code", 0, 12, 4, doc="Code"),
    Field("top", 0, 16, 16, doc="class"),
    Field("tag", 1, 0, 32, doc="tag of ADMIT or FENCE"),
    Field("spread", 2, 0, 32, doc="S of the decision: sum of E[max - q]"),
    Field("stamp_low", 3, 0, 32, doc="cycle of the decision"),
    Field("stamp_high", 4, 0, 32),
)
COMPLETION_WORDS = 5

# --- descriptors ----------------------------------------------------------------------------------------------


class Op(IntEnum):
    """Operations of a program."""

    CONV = 1  # convolution or fully connected layer
    POOL = 2  # per-channel sum or maximum over a window: average, mean and maximum pool
    EXIT = 3  # decide from logits
    JUMP = 4  # over a head that is not enabled
    DEPTHWISE = 5  # depthwise convolution: output channel c reads input channel c


LAYERS = (Op.CONV, Op.POOL, Op.DEPTHWISE)  # the operations that make lines
VARIANTS = 4
MAX_CLASSES = 1024  # of an exit
DESCRIPTOR_WORDS = 40
DESCRIPTOR_BYTES = 4 * DESCRIPTOR_WORDS
EXIT_TABLE_BYTES = 256 * 4

DESCRIPTOR_FIELDS = (
    Field("op", 0, 0, 4, doc="Op"),
    Field("single_rounding", 0, 4, 1, doc="requantise with one rounding (FULLY_CONNECTED of ai-edge-litert)"),
    Field("average", 0, 5, 1, doc="POOL: divide by the number of taps inside the image, half away from zero"),
    Field("padded_average", 0, 6, 1, doc="POOL with average: divisor varies (kh * kw <= 256)"),
    Field("last", 0, 7, 1, doc="EXIT: the last one, always finishes"),
    Field("exit", 0, 8, 4, doc="EXIT, JUMP: which exit"),
    Field("residual", 0, 12, 1, doc="CONV, POOL, DEPTHWISE: add a second tensor to the output (words 32..39)"),
    Field("maximum", 0, 13, 1, doc="POOL: the largest tap instead of the sum; taps outside the image read in_zero"),
    Field("twice", 0, 14, 1, doc="CONV, DEPTHWISE: every word takes two steps, every tap two cycles, with a set each"),
    Field("half_up", 0, 15, 1, doc="POOL with average: half upwards"),
    Field("producer_nseg", 0, 16, 8, doc="lines per image row of the layer that made the input"),
    Field("nseg", 0, 24, 8, doc="lines (segments) per output row; > 1 only if max_lines is 1"),
    Field("producer", 1, 0, 16, doc="index of the layer that made the input, NO_PRODUCER: the input image"),
    Field("target", 1, 16, 16, doc="JUMP: index of the operation after the head"),
    Field("in_offset", 2, 0, 32, doc="input tensor (EXIT: logits), bytes from the arena base"),
    Field("in_w", 3, 0, 16, doc="input pixels per row"),
    Field("in_h", 3, 16, 16, doc="input rows"),
    Field("in_line_beats", 4, 0, 16, doc="beats from one input row to the next"),
    Field("in_pixel_beats", 4, 16, 16, doc="beats of an input pixel"),
    Field("out_offset", 5, 0, 32, doc="output tensor, bytes from the arena base"),
    Field("out_w", 6, 0, 16, doc="output pixels per row"),
    Field("out_h", 6, 16, 16, doc="output rows"),
    Field("out_line_beats", 7, 0, 16, doc="beats from one output row to the next"),
    Field("out_pixel_beats", 7, 16, 16, doc="beats of an output pixel"),
    Field("kh", 8, 0, 8, doc="window rows"),
    Field("kw", 8, 8, 8, doc="window columns"),
    Field("sy", 8, 16, 8, doc="stride, rows"),
    Field("sx", 8, 24, 8, doc="stride, columns"),
    Field("pad_top", 9, 0, 8, doc="rows of padding above"),
    Field("pad_left", 9, 8, 8, doc="columns of padding on the left"),
    Field("seg_w", 9, 16, 16, doc="pixels of a line (the last segment of a row may be shorter)"),
    Field("lines", 10, 0, 16, doc="lines of the layer, out_h * nseg"),
    Field("out_channels", 10, 16, 16, doc="real output channels (EXIT: classes)"),
    Field("in_zero", 11, 0, 8, True, doc="value of a tap outside of the image"),
    Field("out_zero", 11, 8, 8, True, doc="output zero point"),
    Field("clamp_min", 11, 16, 8, True, doc="least output"),
    Field("clamp_max", 11, 24, 8, True, doc="largest output"),
    Field("vsel", 12, 0, 32, doc="2 bits per number of candidates n = 1..16: the variant"),
    Field("chunk_beats", 13, 0, 8, doc="beats of a pixel that staging gathers before it writes"),
    Field("stripe_pixels", 13, 16, 16, doc="pixels of a stripe line: in_w, or the window of a segment"),
    Field("bias", 14, 0, 32, True, doc="POOL: bias of the mean; EXIT: table, bytes from the program base"),
    Field("multiplier", 15, 0, 32, doc="POOL: requantiser or reciprocal"),
    Field("shift", 16, 0, 8, True, doc="POOL: TensorFlow Lite shift (left > 0), or bits of the reciprocal"),
    Field("stripe_line_beats", 16, 16, 16, doc="in_line_beats, or stripe_pixels * in_pixel_beats"),
    *(
        field
        for v in range(VARIANTS)
        for field in (
            Field(f"log2_kr{v}", 17 + 3 * v, 0, 4, doc="row stacking"),
            Field(f"log2_kd{v}", 17 + 3 * v, 4, 4, doc="depth stacking"),
            Field(f"max_lines{v}", 17 + 3 * v, 8, 8, doc="most lines of a sub-tile"),
            Field(f"stripe_lines{v}", 17 + 3 * v, 16, 16, doc="most input lines of a sub-tile"),
            Field(f"weights{v}", 18 + 3 * v, 0, 32, doc="weight stream, bytes from the program base"),
            Field(f"words{v}", 19 + 3 * v, 0, 10, doc="words per tap and stack; DEPTHWISE, POOL: blocks"),
            Field(f"weight_beats{v}", 19 + 3 * v, 10, 22, doc="beats of the weight stream"),
        )
    ),
    Field("res_offset", 32, 0, 32, doc="residual: second operand, bytes from the arena base"),
    Field("res_line_beats", 33, 0, 16, doc="residual: beats from one row to the next"),
    Field("res_pixel_beats", 33, 16, 16, doc="residual: beats of a pixel"),
    Field("res_producer", 34, 0, 16, doc="residual: index of the layer that made it, NO_PRODUCER: the input image"),
    Field("res_producer_nseg", 34, 16, 8, doc="residual: lines per image row of that layer"),
    Field("in_packed", 34, 24, 1, doc="CONV: an input pixel is one word, a beat holds as many pixels as words"),
    Field("out_packed", 34, 25, 1, doc="CONV: the same of the output and of the second operand"),
    Field("add_left_multiplier", 35, 0, 32, doc="residual: of the layer's own value"),
    Field("add_right_multiplier", 36, 0, 32, doc="residual: of the second operand"),
    Field("add_multiplier", 37, 0, 32, doc="residual: of the sum"),
    Field("add_left_shift", 38, 0, 8, True, doc="residual: TensorFlow Lite shift, -31..0"),
    Field("add_right_shift", 38, 8, 8, True, doc="residual: the same"),
    Field("add_shift", 38, 16, 8, True, doc="residual: the same"),
    Field("add_zero", 38, 24, 8, True, doc="residual: zero point of the sum"),
    Field("add_left_zero", 39, 0, 8, True, doc="residual: zero point of the layer's own value"),
    Field("add_right_zero", 39, 8, 8, True, doc="residual: zero point of the second operand"),
    Field("add_clamp_min", 39, 16, 8, True, doc="residual: least sum"),
    Field("add_clamp_max", 39, 24, 8, True, doc="residual: largest sum"),
)

# Average pools whose divisor varies take 1/n from a table in the hardware; the others carry their own reciprocal.
RECIPROCAL_MAX = 256
RECIPROCAL_SHIFT = 24

# --- registers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Register:
    """A 32-bit register (or ``count`` of them, ``stride`` bytes apart). ``access``: r, w or rw."""

    name: str
    address: int
    access: str
    doc: str
    count: int = 1
    stride: int = 4


REGISTERS = (
    Register("MAGIC", 0x000, "r", "0x464E5055"),
    Register("ISA_VERSION", 0x004, "r", "version of this document"),
    Register("CONFIG_HASH", 0x008, "r", "hash of the configuration"),
    Register("CONFIG_ARRAY", 0x010, "r", "pes [15:0], lanes [23:16], max_stack [31:24]"),
    Register("CONFIG_TILE", 0x014, "r", "rows [15:0], max_lines [23:16], slots [31:24]"),
    Register("CONFIG_BUS", 0x018, "r", "bus_bytes [7:0], post_lanes [15:8], programs [23:16], exits [31:24]"),
    Register("CONFIG_BANK", 0x01C, "r", "bank_bytes"),
    Register("CONFIG_STAGE", 0x020, "r", "stage_bytes"),
    Register("CONFIG_QUEUE", 0x024, "r", "command_entries [15:0], completion_entries [31:16]"),
    Register("CONTROL", 0x040, "rw", "rigid [0], unstacked [1], interrupt enable [2]"),
    Register("STATUS", 0x044, "rw", "busy [0], resetting [1], interrupt [2], command overflow [3] (write 1 to clear)"),
    Register("SOFT_RESET", 0x048, "w", "any write: stop issuing, drain, clear; STATUS.resetting until done"),
    Register("COMMAND_FREE", 0x04C, "r", "commands that can be queued now"),
    Register("CYCLE_LOW", 0x050, "r", "cycles since reset; reading latches CYCLE_HIGH"),
    Register("CYCLE_HIGH", 0x054, "r", "upper half, latched"),
    Register("COUNTER_LATCH", 0x058, "w", "any write copies all counters in one cycle"),
    Register("ARGUMENT", 0x080, "rw", "command words 0..4, staged", COMMAND_WORDS),
    Register("DOORBELL", 0x0A0, "w", "opcode: queues the staged command atomically"),
    Register("COMPLETION", 0x0C0, "r", "words 0..4 of the oldest completion", COMPLETION_WORDS),
    Register("COMPLETION_POP", 0x0D8, "w", "any write removes the oldest completion"),
    Register("COMPLETION_LEVEL", 0x0DC, "r", "completions in the queue"),
    Register("PROGRAM_BASE", 0x100, "rw", "byte address of a program region, a multiple of the bus width", 4, 16),
    Register("PROGRAM_BYTES", 0x104, "rw", "size of the region; 0: none", 4, 16),
    Register("PROGRAM_OPS", 0x108, "rw", "operations of the program", 4, 16),
    Register("COUNTER_LOW", 0x200, "r", "latched counters, lower half", 64, 8),
    Register("COUNTER_HIGH", 0x204, "r", "latched counters, upper half", 64, 8),
    Register("SLOT_STATE", 0x400, "r", "state [2:0], runnable [3], ride [4], leave [5], failed [6], cancelled [7], "
             "priority [15:8], pc [31:16]", 16, 16),
    Register("SLOT_ISSUED", 0x404, "r", "pc [31:16], line [15:0] dealt so far", 16, 16),
    Register("SLOT_DONE", 0x408, "r", "pc [31:16], line [15:0] in memory", 16, 16),
    Register("SLOT_TAG", 0x40C, "r", "tag", 16, 16),
    Register("SLOT_SPREAD", 0x500, "r", "S of the last exit that decided on the sample, all ones: none yet", 16, 16),
)  # fmt: skip
REGISTER_ADDR_WIDTH = 12
SLOT_WORDS = tuple(r.name for r in REGISTERS if r.name.startswith("SLOT_"))  # what the host may read of a slot
SPREAD_NONE = 0xFFFFFFFF  # SLOT_SPREAD of a sample that has passed no head: no sum of MAX_CLASSES entries is so large


# Bits of the registers that are no plain number; REGISTERS says the same in words.
REGISTER_FIELDS = {
    "CONFIG_ARRAY": (Field("pes", 0, 0, 16), Field("lanes", 0, 16, 8), Field("max_stack", 0, 24, 8)),
    "CONFIG_TILE": (Field("rows", 0, 0, 16), Field("max_lines", 0, 16, 8), Field("slots", 0, 24, 8)),
    "CONFIG_BUS": (
        Field("bus_bytes", 0, 0, 8),
        Field("post_lanes", 0, 8, 8),
        Field("programs", 0, 16, 8),
        Field("exits", 0, 24, 8),
    ),
    "CONFIG_BANK": (Field("bank_bytes", 0, 0, 32),),
    "CONFIG_STAGE": (Field("stage_bytes", 0, 0, 32),),
    "CONFIG_QUEUE": (Field("command_entries", 0, 0, 16), Field("completion_entries", 0, 16, 16)),
    "CONTROL": (Field("rigid", 0, 0, 1), Field("unstacked", 0, 1, 1), Field("interrupt_enable", 0, 2, 1)),
    "STATUS": (
        Field("busy", 0, 0, 1),
        Field("resetting", 0, 1, 1),
        Field("interrupt", 0, 2, 1),
        Field("overflow", 0, 3, 1),
    ),
}


def register_address(name, index=0):
    """Byte address of a register; IsaError for an unknown name or index."""
    for r in REGISTERS:
        if r.name == name:
            if not 0 <= index < r.count:
                raise IsaError(f"{name}: index {index} is not within 0..{r.count - 1}")
            return r.address + index * r.stride
    raise IsaError(f"no register {name!r}")


# --- counters -------------------------------------------------------------------------------------------------

# Exclusive causes, in this priority: in every cycle exactly one of them counts.
CAUSES = ("array", "vector", "weights", "activations", "dependency", "output", "control", "idle")
COUNTERS = (
    *(f"cycles_{cause}" for cause in CAUSES),
    "tiles",
    "revocations",
    "preemptions",
    "weight_beats",
    "stripe_beats",
    "residual_beats",
    "descriptor_beats",
    "exit_beats",
    "write_beats",
    "read_bursts",
    "write_bursts",
    *(f"exits_{e}" for e in range(16)),
)
COUNTER_BITS = 48

# --- memory clients (AXI read IDs) and events -------------------------------------------------------------------


class Client(IntEnum):
    """Read clients, highest priority first; also their AXI ID."""

    WEIGHT = 0
    RESIDUAL = 1
    STRIPE = 2
    DESCRIPTOR = 3
    EXIT = 4


class EngineEvent(IntEnum):
    """Events of the engine (trace_engine); fields slot, pc, line, data, data2."""

    COMMAND = 1  # executed: data opcode, data2 command word 0; slot, code of an error in line
    DONE = 2  # pc, line: the slot's new done position
    FAILED = 3  # slot marked failed: data code
    JUMP = 4  # pc: where the slot goes on
    EXIT_START = 5  # slot at pc
    EXIT_RESULT = 6  # data: class | finished << 16 | exit << 20, data2: S
    RELEASE = 7  # data: status | code << 4
    REVOKE = 8
    DRAINED = 9  # the dropped tile's reads are all discarded
    DEAL = 10  # slot: leader, pc, line: tile id, data: candidates mask | variant << 16, data2: fragments
    FRAGMENT = 11  # slot, pc, line: first line, data: lines | sub-tile << 16
    START = 12  # line: tile id
    RETIRE = 13  # line: tile id, every write response arrived
    RESET = 14  # soft reset done


class ArrayEvent(IntEnum):
    """Events of the array (trace_array)."""

    TILE = 1  # first MAC of a tile: line: tile id, data: rows | log2_kr << 16 | log2_kd << 20
    CTILE = 2  # first MAC of a c-tile: line: tile id, data: c-tile
    END = 3  # last MAC of a tile: line: tile id
