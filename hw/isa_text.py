"""The hand-written parts of docs/isa.md: what a table of numbers cannot say."""

from .isa import Opcode

__all__ = ["ACTIONS", "COUNTER_TEXTS", "DESCRIPTOR_RULES", "INTRODUCTION", "MORE_COMMENTS", "NOTES", "SECTIONS"]

INTRODUCTION = """\
# Instruction set

Printed by `python -m fluidnpu.hw.isa_doc > docs/isa.md` from hw/isa.py; edit that file (text: hw/isa_text.py), not
this one.

The host sees the NPU as 32-bit registers on an AXI4-Lite port. It puts commands into a queue, and takes completions
out of another. Programs, weights and the samples' tensors lie in external memory. Everything is little endian;
reserved bits are written 0 and ignored. Terms are those of docs/architecture.md.
"""

# What a command does, as the loop it executes; ``live``: admitted and not released.
ACTIONS = {
    Opcode.ADMIT: """\
if slot, pc or arena is wrong: post ERROR(code)
else: slots[slot] = live, at (pc, 0), with these fields; leave, cancelled, failed = 0; age = number of the ADMIT""",
    Opcode.BATCH: """\
for s in slot_mask, if live: pending[s] = (priority, runnable, ride)
if commit: for every live s with pending[s]: apply it and erase it, all in one cycle""",
    Opcode.LEAVE: "for s in slot_mask, if live: slots[s].leave = 1",
    Opcode.CANCEL: "for s in slot_mask, if live: slots[s].cancelled = 1",
    Opcode.LIMIT: """\
if there is no such program or exit: post ERROR(EXIT)
else: limits[program][exit] = limit""",
    Opcode.FENCE: """\
wait until every slot that an earlier CANCEL marked is released
post FENCE(tag)""",
}

NOTES = {
    Opcode.ADMIT: """\
The slot must be free: never used, or its last sample's completion popped. That is judged when the command executes.
The pc names a program region whose registers are written, and an operation below PROGRAM_OPS. The arena starts at a
multiple of the bus width, is not empty and ends within the 32-bit address space. The completion entry that was reserved
for the command stays with the sample.""",
    Opcode.BATCH: """\
The batch command: who runs, who rides along, who outranks whom. The last entry of a slot wins; ADMIT and leaving erase
it. Entries without commit have no effect until a later BATCH commits (its mask may be empty). A slot of higher priority
than all members of the dealt tile takes its place; a tile that has started always finishes.""",
    Opcode.LEAVE: """\
The slot enters the next exit head even if that exit is disabled, and leaves there whatever the confidence. The bit is
read at the jump and when the decision ends.""",
    Opcode.CANCEL: """\
The slot gets no lines any more and is released as soon as no tile, no read and no write of it is outstanding. Its
completion says CANCELLED, or FAILED if it had failed.""",
    Opcode.LIMIT: """\
A sample leaves at an exit if its spread S <= limit. S = sum over the classes of E[max - q], with E[0] = 65536; a
threshold t on the top class's probability is limit = floor(65536 / t). All limits are 0 after reset.""",
    Opcode.FENCE: """\
It waits neither for LEAVE nor for uncommitted BATCH entries, and not for samples that nobody cancelled. Commands
behind it wait with it.""",
}

SECTIONS = {
    "access": """\
An access is answered SLVERR, and changes nothing, if

- no register of this configuration is there (programs, slots and counters that do not exist included), or the address
  is not a multiple of 4;
- it writes a read-only register or reads a write-only one;
- a write does not have all four byte strobes;
- it rings DOORBELL while COMMAND_FREE is 0 (this also sets the overflow bit in STATUS);
- it writes COMPLETION_POP while there is no completion.

Refused reads show 0. No access waits for the engine. Reads and writes are independent of each other; a read that is
issued after a write's response sees its effect. A multi-word value is consistent because its reading latches the rest
(CYCLE_LOW), because one write copies it (COUNTER_LATCH) or because only the host removes it (COMPLETION).
The lower bits of PROGRAM_BASE, below the bus width, are always 0.
""",
    "ordering": """\
- A command is the ARGUMENT words and the value that DOORBELL gets: they enter the queue together. The staged words keep
  their values, so that commands that differ in one word cost two writes. A doorbell value above 255 counts as 255,
  which is no opcode.
- Commands take effect in order, each at one moment. They are not ordered with samples: a sample may reach its exit
  before or after a LEAVE behind its ADMIT executes.
- COMMAND_FREE is the smaller of the free command entries and the completion entries that nobody has a claim to. That
  many doorbells succeed, in any case: only the host makes it smaller.
- Every command reserves a completion entry when it is queued. A command that executes without posting anything gives
  it back; a successful ADMIT hands it to its sample. So samples never wait for the host to pop.
- Completions come in event order, not in the order of the commands. A slot that completed can be admitted again only
  after that completion was popped.
- Program registers and CONTROL (rigid, unstacked) act at once; change them while no sample uses them.
""",
    "interrupt": """\
`irq` is a level: high while the completion queue is not empty and CONTROL enables the interrupt. The host reads
COMPLETION, writes COMPLETION_POP, and repeats while COMPLETION_LEVEL is not 0; irq falls with the last pop. There is
nothing to acknowledge.
""",
    "errors": """\
- A wrong command posts ERROR with a code and changes nothing else. Its slot and tag repeat those fields of the command,
  0 if it has none.
- A descriptor that breaks a rule, a burst that would leave its region and an error response of the memory fail the
  samples they belong to and nobody else: each is released with FAILED and the first code. A weight error belongs to
  every member of the tile.
- exit, top and spread mean something with status OK only. stamp is the cycle of the decision; without a decision, of
  the release (of the execution, for ERROR and FENCE).
- Every burst lies, first and last byte, in a program region (reads) or in the arena of its slot. No bit pattern in a
  program can hang the NPU or touch another sample's arena.
- The overflow bit stays until 1 is written to it.
""",
    "reset": """\
SOFT_RESET stops dealing, waits for outstanding reads and writes, and forgets all slots, limits, queued commands and
completions: none of them completes. Meanwhile STATUS.resetting is 1, COMMAND_FREE is 0 and COMPLETION shows nothing.
Program registers, CONTROL, ARGUMENT, the overflow bit and all counters keep their values.
""",
    "counters": """\
Counters are {bits} bits wide, count from reset on and are never cleared: latch twice and subtract. In every cycle
exactly one `cycles_` counter counts, the first of the table that applies, so their sum equals CYCLE of the cycle in
which COUNTER_LATCH was performed.
""",
    "program": """\
A program region holds PROGRAM_OPS descriptors of {descriptor} bytes from PROGRAM_BASE on, then whatever they refer to:
weight streams (layout: docs/architecture.md, Array) and the exits' tables of {table} bytes,
E[d] = round(2^16 exp(-scale d)) for d = 0..255, one 32-bit word each. The hardware only reads it. A pc is 16 bits, the
program in [15:{index}] and the index of the operation below. Operations run in order, except over a JUMP.
""",
    "descriptor": """\
A descriptor is {words} words; offsets are from the arena base, those of weights and tables from the program base.
The variant of a tile is vsel[2n-1:2n-2] for n candidates (n = 16 and above: the last), variant 0 with
CONTROL.unstacked; the fields of variant v end in v.
""",
    "trace": """\
The simulation top records these; a device has no such port. slot, pc, line, data and data2 are the fields of an event;
those that are not named are 0.
""",
}

DESCRIPTOR_RULES = """\
A slot that reaches an operation which breaks one of these fails with code DESCRIPTOR.

- op is one of the table above.
- CONV, POOL, DEPTHWISE: sizes that are counted (in_w, in_h, out_w, out_h, lines, out_channels, kh, kw, sy, sx, nseg,
  seg_w, in_pixel_beats, out_pixel_beats, chunk_beats) are not 0; images are at most 4095 wide and high; a pixel is less
  than 1024 words.
- clamp_min <= clamp_max; padded_average only with POOL, average and kh * kw <= {reciprocal};
  maximum only with POOL and not with average; half_up only with average; twice not with POOL; DEPTHWISE: kh * kw,
  doubled with twice, <= {taps}.
- in_offset, out_offset and weights are multiples of the bus width.
- lines = out_h * nseg; the segments cover a row, none of them is empty, and seg_w <= rows (nseg = 1: seg_w = out_w).
- Rows of the input and of the output do not overlap; out_channels fit the output pixel.
- producer is NO_PRODUCER or an earlier index, then with producer_nseg > 0.
- A stripe line holds the input row (nseg = 1) or the window of a segment, and stripe_line_beats holds stripe_pixels.
- Every variant, used or not: kr * kd <= max_stack; 1 <= max_lines <= the device's max_lines, 1 if nseg > 1;
  max_lines * seg_w <= rows; stripe_lines >= kh; stripe_lines * stripe_line_beats * kr <= a bank half of all banks
  together; kr * max_lines * seg_w pixels of a chunk fit a staging half; the pixel's and the stripe line's beats are
  multiples of kd; 1 <= words <= words of a pixel / kd; POOL, DEPTHWISE: ceil(words / words of a beat) * kd are the
  beats that out_channels take; a chunk that is not the whole pixel is whole c-tiles (POOL, DEPTHWISE: a multiple of kd
  beats); weight_beats is the length of the weight stream (POOL: 0).
- in_packed, out_packed: only with CONV, nseg = 1 and more than one word in a beat; the pixel's beats (of the second
  operand too) are 1. in_packed: words = 1, kd = 1. out_packed: out_channels fit a word, out_w is whole beats.
- residual: res_offset is a multiple of the bus width; res_pixel_beats is not 0, rows of the second operand do not
  overlap and out_channels fit its pixel; res_producer is NO_PRODUCER or an earlier index, then with
  res_producer_nseg > 0; the three shifts are within -31..0; add_clamp_min <= add_clamp_max.
- EXIT: 1 <= out_channels <= {classes}; exit < the device's exits; in_offset and the table (bias) are multiples of the
  bus width.
- JUMP: index < target < PROGRAM_OPS, and target fits the {index} bits of an index. No operation stands at the last
  index that those bits can name: the pc behind it would be in the next program.
"""

COUNTER_TEXTS = {
    "cycles_array": "a CONV row is multiplied",
    "cycles_vector": "the vector path (DEPTHWISE, POOL) multiplies",
    "cycles_weights": "the running tile waits for weights",
    "cycles_activations": "the dealt tile waits for stripe or residual beats",
    "cycles_dependency": "the dealt tile's next stripe or residual line is not in memory yet",
    "cycles_output": "the array waits for accumulators, staging or a tracker entry",
    "cycles_control": "samples are live or a soft reset is under way, and none of the above",
    "cycles_idle": "nothing to do",
    "tiles": "tiles started",
    "revocations": "dealt tiles that were dropped before they started",
    "preemptions": "dealt tiles none of whose candidates was in the group before, while one of that group could go on",
    "weight_beats": "beats read for weights and parameters",
    "stripe_beats": "beats read for stripes",
    "residual_beats": "beats read for second operands of residual additions",
    "descriptor_beats": "beats read for descriptors",
    "exit_beats": "beats read for exits (logits and tables)",
    "write_beats": "beats written",
    "read_bursts": "bursts read",
    "write_bursts": "bursts written",
    **{f"exits_{e}": f"decisions to leave at exit {e}" for e in range(16)},
}

# For enumeration members whose comment in isa.py stands at a neighbour, or whose name says it all there.
MORE_COMMENTS = {
    "Status": {"OK": "the sample took an exit", "CANCELLED": "as a CANCEL asked", "FENCE": "of a FENCE command"},
    "Code": {
        "NONE": "no error",
        "DESCRIPTOR_READ": "error response to a descriptor's read",
        "STRIPE_READ": "error response to an activation's read",
        "WEIGHT_READ": "error response to a weight's read",
        "EXIT_READ": "error response to a read of logits or of a table",
        "WRITE": "error response to a write",
        "RESIDUAL_READ": "error response to a read of a second operand",
    },
    "Client": {
        "WEIGHT": "weight streamer",
        "RESIDUAL": "residual loader",
        "STRIPE": "stripe loader",
        "DESCRIPTOR": "descriptor cache",
        "EXIT": "exit unit",
    },
    "EngineEvent": {"REVOKE": "the dealt tile is dropped"},
}
