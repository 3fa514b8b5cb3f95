"""Random networks for the engine model, and an oracle that watches it.

The oracle keeps its own books (every single line written, the path of each sample) and takes nothing from the model's
positions; a breach of what the algorithm promises raises `ModelViolation`.
"""

from collections import Counter
from dataclasses import dataclass, field

from fluidnpu.hw.isa import NO_PRODUCER, PC_INDEX_BITS, Status, make_pc

from .engine_layers import Bad, Exit, Jump, Layer, Variant
from .engine_model import ModelViolation

__all__ = ["INDEX_MASK", "Oracle", "Sample", "WorldStats", "merging", "random_program", "require", "split_lines"]

INDEX_MASK = (1 << PC_INDEX_BITS) - 1


def require(condition, text):
    """Raise ModelViolation with ``text`` unless the condition holds."""
    if not condition:
        raise ModelViolation(text)


def random_program(rng, exits=3, bad=0.0):
    """A small random network: backbone, heads behind jumps (or not), an exit each. ``bad``: chance of a Bad op."""
    ops = []
    image = (rng.choice([1, 4, 9, 16]), 1, NO_PRODUCER)  # rows, lines per row, producer
    backbone = [image]
    tensors = [image]  # that the present path has made

    def layer(source):
        rows, source_nseg, producer = source
        kh = rng.choice([1, 1, 2, 3, 3, 5, rows])
        sy = rng.choice([1, 1, 1, 2, 3])
        pad_top, pad_bottom = (rng.randint(0, kh - 1) for _ in range(2))
        out_rows = max(1, (rows + pad_top + pad_bottom - kh) // sy + 1)
        nseg = rng.choice([1, 1, 1, 1, 2, 3])
        # A second operand: any earlier tensor with as many rows, the input of this layer included
        operands = [(p, n) for r, n, p in tensors if r == out_rows]
        residual = rng.choice(operands) if operands and rng.random() < 0.4 else None
        variants = [
            Variant(
                kr=1 if v == 0 else rng.choice([1, 2, 4]),
                max_lines=1 if nseg > 1 else rng.randint(1, 8),
                stripe_lines=kh + rng.choice([0, 1, 3, 8, 40, 40]),
            )
            for v in range(rng.randint(1, 4))
        ]
        ops.append(
            Layer(out_rows * nseg, rows, kh, sy, pad_top, nseg, producer, source_nseg, tuple(variants),
                  tuple(rng.randrange(len(variants)) for _ in range(16)), residual)
        )  # fmt: skip
        tensors.append((out_rows, nseg, len(ops) - 1))
        return tensors[-1]

    for exit in range(exits):
        for _ in range(rng.randint(1, 3)):
            backbone.append(layer(rng.choice(backbone[-3:])))
            if rng.random() < bad:
                ops.append(Bad())
        last = exit == exits - 1
        jump = len(ops) if not last and rng.random() < 0.8 else None
        if jump is not None:
            ops.append(None)
        head, made = backbone[-1], len(tensors)
        for _ in range(rng.randint(1, 2)):
            head = layer(head)
        del tensors[made:]  # whoever goes on did not pass the head
        ops.append(Exit(exit, last))
        if jump is not None:
            ops[jump] = Jump(exit, len(ops))
    return tuple(ops)


def split_lines(layer, variant, kr, offers, total):
    """Reference of the dealing rule: cut the list of offered lines into sub-tiles, each the longest legal run.

    ``offers``: (slot, line) in order; ``total``: remaining lines of all candidates. A sub-tile holds at most
    min(max_lines, ceil(total / kr)) lines whose windows, merged per slot (padding included), are at most
    ``stripe_lines`` rows. Returns lists of (slot, line).
    """
    most = min(variant.max_lines, (total + kr - 1) // kr)
    subtiles, rest = [], list(offers)
    while rest and len(subtiles) < kr:
        size = 0
        while size < min(most, len(rest)):
            rows = set()
            for slot, line in rest[: size + 1]:
                top = line // layer.nseg * layer.sy - layer.pad_top
                rows |= {(slot, top + tap) for tap in range(layer.kh)}
            if len(rows) > variant.stripe_lines:
                break
            size += 1
        subtiles.append(rest[:size])
        del rest[:size]
    return subtiles


@dataclass
class Sample:
    """The oracle's book of one admitted sample."""

    pc: int
    age: int
    line: int = 0
    written: set = field(default_factory=set)  # (pc, line)
    outstanding: set = field(default_factory=set)
    finished: bool = False

    @property
    def place(self):
        return self.pc, self.line


class Oracle:
    """Checks what the engine does with its samples, from single lines and operations alone."""

    def __init__(self, programs):
        self.programs = programs
        self.samples = {}  # slot -> Sample

    def op(self, pc):
        return self.programs[pc >> PC_INDEX_BITS][pc & INDEX_MASK]

    def row_written(self, slot, pc, row):
        """All lines of input row ``row`` of the layer at ``pc`` are in the memory of ``slot``."""
        layer = self.op(pc)
        return self._written(slot, pc, row, layer.producer, layer.producer_nseg)

    def residual_written(self, slot, pc, line):
        """The row of the second operand that output line ``line`` of the layer at ``pc`` adds is in memory."""
        layer = self.op(pc)
        return layer.residual is None or self._written(slot, pc, line // layer.nseg, *layer.residual)

    def _written(self, slot, pc, row, producer, nseg):
        if producer == NO_PRODUCER:
            return True
        producer = make_pc(pc >> PC_INDEX_BITS, producer)
        return all((producer, line) in self.samples[slot].written for line in range(row * nseg, (row + 1) * nseg))

    def inputs_written(self, slot, pc, line):
        """Everything that output line ``line`` of the layer at ``pc`` reads is in memory."""
        layer = self.op(pc)
        top = line // layer.nseg * layer.sy - layer.pad_top
        rows = [row for row in range(top, top + layer.kh) if 0 <= row < layer.in_h]
        return all(self.row_written(slot, pc, row) for row in rows) and self.residual_written(slot, pc, line)

    def dealt(self, tile, able, config, unstacked):
        """The dealt tile follows the rule, line for line. ``able``: dealable slot -> (priority, ride)."""
        books, priority = self.samples, {s: rank for s, (rank, _) in able.items()}
        top = [s for s in able if priority[s] == max(priority.values())]
        laggards = [s for s in top if books[s].place == min(books[t].place for t in top)]
        leader = min(laggards, key=lambda s: books[s].age)
        riders = [s for s, (_, ride) in able.items() if ride and books[s].pc == tile.pc and s != leader]
        expected = (leader, *sorted(riders, key=lambda s: books[s].age))
        require(tile.candidates == expected, f"tile {tile.number}: candidates {tile.candidates}, expected {expected}")
        positions = {s: books[s].line for s in expected}
        layer = self.op(tile.pc)
        variant = layer.variants[0 if unstacked else layer.vsel[len(tile.candidates) - 1]]
        kr = min(variant.kr, config.max_stack)
        offers = []
        for s in tile.candidates:
            for line in range(positions[s], layer.lines):
                if priority[s] < priority[leader] and not self.inputs_written(s, tile.pc, line):
                    break
                offers.append((s, line))
        total = sum(layer.lines - positions[s] for s in tile.candidates)
        expected = split_lines(layer, variant, kr, offers, total)
        got = [[(f.slot, f.first + i) for f in subtile for i in range(f.lines)] for subtile in tile.subtiles]
        require(got == expected, f"tile {tile.number} at pc {tile.pc}: {got}, expected {expected}")
        require(
            got and got[0][0][0] == tile.leader == leader, f"tile {tile.number}: the leader {tile.leader} is not first"
        )
        require(len(tile.fragments) <= config.fragments, f"tile {tile.number}: {len(tile.fragments)} fragments")

    def started(self, tile, ending):
        """Lines are computed: each next in its sample's order, with every input row written (unless it ends)."""
        for fragment in tile.fragments:
            sample = self.samples.get(fragment.slot)
            require(sample is not None and not sample.finished, f"tile {tile.number}: slot {fragment.slot} left")
            for line in range(fragment.first, fragment.first + fragment.lines):
                want, got = (sample.pc, sample.line), (tile.pc, line)
                require(want == got, f"slot {fragment.slot} computes {got}, its next line is {want}")
                written = fragment.slot in ending or self.inputs_written(fragment.slot, *got)
                require(written, f"slot {fragment.slot}: {got} before its inputs")
                sample.outstanding.add(got)
                sample.line += 1
            if sample.line == self.op(sample.pc).lines:
                sample.pc, sample.line = sample.pc + 1, 0

    def wrote(self, slot, tile, number):
        """Line ``number`` (0, 1, ..) of those that ``slot`` has in this tile is in memory."""
        line = [(tile.pc, f.first + i) for f in tile.fragments if f.slot == slot for i in range(f.lines)][number]
        sample = self.samples[slot]
        require(line in sample.outstanding, f"slot {slot}: line {line} is written, but not outstanding")
        sample.outstanding.remove(line)
        sample.written.add(line)

    def at_exit(self, slot):
        """The sample decides: every line that it computed is in memory, the logits are complete."""
        sample = self.samples[slot]
        require(isinstance(self.op(sample.pc), Exit), f"slot {slot} decides at pc {sample.pc}, which is no exit")
        require(not sample.outstanding, f"slot {slot} decides with lines {sample.outstanding} outstanding")
        logits = self.op(sample.pc - 1)
        missing = {(sample.pc - 1, line) for line in range(logits.lines)} - sample.written
        require(not missing, f"slot {slot} decides without lines {missing}")

    def released(self, slot, status, ending):
        """Nothing outstanding; a sample ends OK only after a decision."""
        sample = self.samples.pop(slot)
        require(not sample.outstanding, f"slot {slot} is released with lines {sample.outstanding} outstanding")
        require(ending, f"slot {slot} is released without a reason")
        require(status != Status.OK or sample.finished, f"slot {slot} is released OK without a decision")


@dataclass
class WorldStats:
    """What a run did. ``layer_starts``: pc of every started tile; None where no sample was live before it."""

    tiles: int = 0
    lines: int = 0
    revocations: int = 0
    cycles: int = 0
    shared: int = 0  # tiles with lines of several samples
    stacked: int = 0  # tiles of several sub-tiles
    completions: Counter = field(default_factory=Counter)
    layer_starts: list = field(default_factory=list)

    def merging(self):
        """Runs of a layer per layer visited."""
        return merging(self.layer_starts)


def merging(layer_starts):
    """Runs of a layer (started tiles in a row at one pc) per layer visited, busy period by busy period.

    1.00: all samples of each busy period went through every layer together. None separates busy periods.
    """
    runs, visited, here, last = 0, 0, set(), None
    for pc in [*layer_starts, None]:
        if pc is None:
            visited, here = visited + len(here), set()
        elif pc != last:
            runs += 1
            here.add(pc)
        last = pc
    return runs / visited if visited else 1.0
