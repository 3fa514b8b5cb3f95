"""What the fluid-batching engine reads of a program, and how it deals lines into sub-tiles.

A program is a sequence of operations: `Layer`, `Jump` (over an exit head), `Exit`, `Bad` (a descriptor that breaks a
rule). Lines are output lines of a layer, stripe lines are its input rows. `deal_subtiles` is the inner loop of
docs/architecture.md's dealing rule as a pure function; nothing here has state.
"""

from dataclasses import dataclass

from fluidnpu.hw.isa import LAYERS, NO_PRODUCER, VARIANTS, Op, make_pc

__all__ = ["Bad", "Cursor", "Exit", "Fragment", "Jump", "Layer", "Tile", "Variant", "deal_subtiles", "from_descriptor"]

MOST_CANDIDATES = 16


@dataclass(frozen=True)
class Variant:
    """Stack mode (kr, kd) with the most lines (``max_lines``) and input lines (``stripe_lines``) of a sub-tile."""

    kr: int = 1
    kd: int = 1
    max_lines: int = 1
    stripe_lines: int = 1


@dataclass(frozen=True)
class Layer:
    """A layer as the engine sees it: lines, window rows, the producer of its input, its variants.

    lines : output lines, output rows x ``nseg``; line = row * nseg + segment
    in_h : rows of the input; kh, sy, pad_top : window rows, stride, padding above
    producer : index of the operation that made the input (same program), NO_PRODUCER: the input image
    producer_nseg : lines per input row; without a producer any number
    vsel : variant index for 1, 2, ... candidates; more candidates than entries take the last one
    residual : (producer, lines per row) of the second operand, or None; output row y adds its row y

    Raises ValueError for a value out of range.
    """

    lines: int
    in_h: int
    kh: int = 1
    sy: int = 1
    pad_top: int = 0
    nseg: int = 1
    producer: int = NO_PRODUCER
    producer_nseg: int = 1
    variants: tuple = (Variant(),)
    vsel: tuple = (0,)
    residual: tuple | None = None

    def __post_init__(self):
        for name in ("lines", "in_h", "kh", "sy", "nseg"):
            if getattr(self, name) < 1:
                raise ValueError(f"layer: {name} = {getattr(self, name)} is not at least 1")
        for name, of in (("producer", (self.producer, self.producer_nseg)), ("residual", self.residual)):
            if of is not None and of[0] != NO_PRODUCER and of[1] < 1:
                raise ValueError(f"layer: {name} = {of} has no lines per row")
        if self.lines % self.nseg:
            raise ValueError(f"layer: lines = {self.lines} is not a multiple of nseg = {self.nseg}")
        if not 1 <= len(self.variants) <= VARIANTS:
            raise ValueError(f"layer: {len(self.variants)} variants are not within 1..{VARIANTS}")
        if not self.vsel or not all(0 <= v < len(self.variants) for v in self.vsel):
            raise ValueError(f"layer: vsel = {self.vsel} names a variant outside of 0..{len(self.variants) - 1}")
        for i, v in enumerate(self.variants):
            if v.stripe_lines < self.kh:
                raise ValueError(f"layer: variant {i}: stripe_lines = {v.stripe_lines} is less than kh = {self.kh}")
            if v.max_lines < 1 or (self.nseg > 1 and v.max_lines > 1):
                raise ValueError(f"layer: variant {i}: max_lines = {v.max_lines} does not go with nseg = {self.nseg}")

    @property
    def advance(self):
        """Stripe lines that a further line of the same fragment costs."""
        return min(self.sy, self.kh)

    def variant_index(self, candidates):
        """Variant for this number of candidates, the leader included."""
        return self.vsel[min(candidates, len(self.vsel)) - 1]

    def input_rows(self, line):
        """The rows of the input image that output line ``line`` reads, padding left out."""
        top = line // self.nseg * self.sy - self.pad_top
        return range(max(0, top), min(self.in_h, top + self.kh))

    def stripe_rows(self, fragment):
        """Input rows of a fragment in the order in which they are read, each once."""
        rows = []
        for line in range(fragment.first, fragment.first + fragment.lines):
            rows += [row for row in self.input_rows(line) if not rows or row > rows[-1]]
        return rows

    def row_position(self, program, row):
        """Position (pc, line) of the last producer line of input row ``row``; None for the input image."""
        return _last_line(program, row, self.producer, self.producer_nseg)

    def residual_position(self, program, line):
        """The same for the row of the second operand that output line ``line`` adds; None also without one."""
        return None if self.residual is None else _last_line(program, line // self.nseg, *self.residual)

    def needed_positions(self, program, line):
        """Positions of the last producer lines that output line ``line`` needs: input and second operand."""
        last = line // self.nseg * self.sy - self.pad_top + self.kh - 1
        return self.row_position(program, min(self.in_h - 1, last)), self.residual_position(program, line)


def _last_line(program, row, producer, nseg):
    return None if producer == NO_PRODUCER else (make_pc(program, producer), (row + 1) * nseg - 1)


@dataclass(frozen=True)
class Jump:
    """Before a head: go on at the next operation (the head) or at index ``target`` of the same program."""

    exit: int
    target: int


@dataclass(frozen=True)
class Exit:
    """Decide from the logits that the layer before it made; the ``last`` exit always finishes."""

    exit: int
    last: bool = False


@dataclass(frozen=True)
class Bad:
    """An operation whose descriptor is refused: whoever comes to it fails."""


@dataclass(frozen=True)
class Fragment:
    """``lines`` consecutive lines of one slot, from line ``first``, in one sub-tile."""

    slot: int
    first: int
    lines: int


@dataclass(frozen=True)
class Tile:
    """A dealt tile. ``subtiles``: tuple of tuples of Fragment; ``before``, ``end``: member slot -> (pc, line)."""

    number: int
    pc: int
    leader: int
    candidates: tuple
    variant: int
    kr: int
    kd: int
    subtiles: tuple
    before: dict
    end: dict

    @property
    def members(self):
        """The group: slots that got lines, in the order of the candidates."""
        return tuple(self.end)

    @property
    def fragments(self):
        """All fragments in order."""
        return [fragment for subtile in self.subtiles for fragment in subtile]


@dataclass(frozen=True)
class Cursor:
    """A candidate at its next line; ``available`` of its remaining lines may be dealt now."""

    slot: int
    line: int
    available: int


def deal_subtiles(layer, variant, kr, cursors):
    """Deal the candidates' lines, densely and in order, to at most ``kr`` sub-tiles.

    A sub-tile takes up to t = min(max_lines, ceil(N / kr)) lines, N = all remaining lines of the candidates, and up
    to ``stripe_lines`` input lines: kh for a fragment's first line, ``layer.advance`` for each further one.
    Returns a tuple of sub-tiles, each a tuple of Fragment; empty ones are dropped.
    """
    remaining = sum(layer.lines - c.line for c in cursors)
    most = min(variant.max_lines, -(-remaining // kr))
    taken = [0] * len(cursors)
    at = 0  # the candidate where the previous sub-tile stopped
    subtiles = []
    for _ in range(kr):
        subtile, lines, stripe = [], 0, 0
        while at < len(cursors):
            cursor, count = cursors[at], 0
            while taken[at] + count < cursor.available and lines < most:
                cost = layer.advance if count else layer.kh
                if stripe + cost > variant.stripe_lines:
                    break
                count, lines, stripe = count + 1, lines + 1, stripe + cost
            if count:
                subtile.append(Fragment(cursor.slot, cursor.line + taken[at], count))
                taken[at] += count
            if taken[at] < cursor.available:
                break  # the sub-tile is full
            at += 1
        if not subtile:
            break
        subtiles.append(tuple(subtile))
    return tuple(subtiles)


def from_descriptor(fields):
    """The operation of a decoded descriptor (dict of isa.DESCRIPTOR_FIELDS); `Bad` for what the engine refuses."""
    if fields["op"] == Op.JUMP:
        return Jump(fields["exit"], fields["target"])
    if fields["op"] == Op.EXIT:
        return Exit(fields["exit"], bool(fields["last"]))
    if fields["op"] not in LAYERS:
        return Bad()
    variants = tuple(
        Variant(
            1 << fields[f"log2_kr{v}"], 1 << fields[f"log2_kd{v}"], fields[f"max_lines{v}"], fields[f"stripe_lines{v}"]
        )
        for v in range(VARIANTS)
    )
    vsel = tuple(fields["vsel"] >> 2 * n & 3 for n in range(MOST_CANDIDATES))
    used = max(vsel) + 1  # variants that no number of candidates selects may be empty
    geometry = {name: fields[name] for name in ("lines", "in_h", "kh", "sy", "pad_top", "nseg", "producer_nseg")}
    residual = (fields["res_producer"], fields["res_producer_nseg"]) if fields["residual"] else None
    try:
        return Layer(**geometry, producer=fields["producer"], variants=variants[:used], vsel=vsel, residual=residual)
    except ValueError:
        return Bad()
