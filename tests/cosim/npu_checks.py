"""Checks of what a scenario did: every byte of memory, every answer, every action of the engine, every counter."""

from dataclasses import dataclass, field
from math import ceil

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import LAYERS, EngineEvent, Opcode, Status
from fluidnpu.nn.exits import decide, exit_table, top_and_spread
from fluidnpu.sim.replay import ENGINE_PORT, program_operations, replay
from fluidnpu.sim.rtl_device import accepted_commands
from fluidnpu.sim.simulate import run_in_simulator
from npu_host import play_all

__all__ = ["Course", "Story", "check_outcome", "run_checked", "runs_per_layer", "tell"]

LATCH_DELAY = 1  # cycles from the handshake of COUNTER_LATCH to the cycle that the counters are of


@dataclass(eq=False)
class Course:
    """What one sample did: fragments of started tiles (op, fragment), those after its cancellation apart: nobody waits
    for lines of a slot that ends, so they hold anything. Decisions (op, exit, class, S), and its release."""

    tag: int
    program: int
    slot: int
    fragments: list = field(default_factory=list)
    late: list = field(default_factory=list)
    decisions: list = field(default_factory=list)
    left: bool = False  # a LEAVE reached it
    cancelled: bool = False
    released: bool = False


@dataclass(eq=False)
class Story:
    """The trace of a run: a Course per tag, started tiles in order (model's Tile) and their cycles, the replay."""

    courses: dict
    tiles: list
    starts: list
    revocations: int
    played: object
    places: list = field(default_factory=list)

    def _place(self, tile):
        return self.places[tile.pc >> isa.PC_INDEX_BITS], tile.pc & (1 << isa.PC_INDEX_BITS) - 1

    def descriptor(self, tile):
        """Fields of the descriptor of a tile's operation."""
        places, op = self._place(tile)
        return places.ops[op]

    def stripe_rows(self, tile):
        """Input rows that a tile loads."""
        places, op = self._place(tile)
        return sum(len(places.layers[op].stripe_rows(f)) for f in tile.fragments)

    def stripe_beats(self, tile):
        """Beats that a tile loads."""
        places, op = self._place(tile)
        return sum(places.stripe_beats(op, f) for f in tile.fragments)

    def residual_beats(self, tile):
        """Beats of second operands that a tile reads."""
        places, op = self._place(tile)
        d, pixels = places.ops[op], sum(places.pixels(op, f) for f in tile.fragments)
        if not d["residual"]:
            return 0
        if d["out_packed"]:
            return pixels // places.words_per_beat  # rows of whole beats
        return pixels * ceil(d["out_channels"] / places.program.bus_bytes)


def tell(config, programs, outcome, *, rigid=False, unstacked=False):
    """Replay the trace against the engine model and sort it by samples."""
    operations = {i: program_operations(c.program.region, len(c.program.ops)) for i, c in enumerate(programs)}
    commands = accepted_commands(outcome["transactions"])
    events = outcome["events"]
    played = replay(config, operations, commands, events, rigid=rigid, unstacked=unstacked)
    story = Story({}, [], [], 0, played)
    holder = [None] * config.slots
    dealt, queue, index_mask = iter(played.tiles), iter(commands), (1 << isa.PC_INDEX_BITS) - 1
    announced = None
    for event in events[events["source"] == ENGINE_PORT]:
        kind, slot = int(event["kind"]), int(event["slot"])
        pc, data = int(event["pc"]) & index_mask, int(event["data"])
        if kind == EngineEvent.COMMAND:
            opcode, words = next(queue)
            fields = isa.decode(isa.COMMANDS[Opcode(opcode)], words) if opcode in tuple(Opcode) else {}
            if opcode == Opcode.ADMIT and not event["line"]:
                tag = fields["tag"]
                assert tag not in story.courses, f"tag {tag} was admitted twice"
                holder[slot] = story.courses[tag] = Course(tag, fields["pc"] >> isa.PC_INDEX_BITS, slot)
            if opcode in (Opcode.LEAVE, Opcode.CANCEL):
                for s, course in enumerate(holder):
                    if course is not None and fields["slot_mask"] >> s & 1:
                        setattr(course, "left" if opcode == Opcode.LEAVE else "cancelled", True)
        elif kind == EngineEvent.DEAL:
            announced = next(dealt)
        elif kind == EngineEvent.REVOKE:
            announced, story.revocations = None, story.revocations + 1
        elif kind == EngineEvent.START:
            story.tiles.append(announced)
            story.starts.append(int(event["cycle"]))
            for fragment in announced.fragments:
                course = holder[fragment.slot]
                (course.late if course.cancelled else course.fragments).append((announced.pc & index_mask, fragment))
            announced = None
        elif kind == EngineEvent.EXIT_RESULT:
            holder[slot].decisions.append((pc, data >> 20, data & 0xFFFF, int(event["data2"])))
        elif kind == EngineEvent.RELEASE:
            holder[slot].released, holder[slot] = True, None
    return story


def check_outcome(config, programs, scenario, outcome):
    """Everything about one run; ``programs``: list of Compiled. Returns its Story. The caller names the seed."""
    story = tell(config, programs, outcome, rigid=scenario.rigid, unstacked=scenario.unstacked)
    story.places = tables = [_Places(c, config.words_per_beat) for c in programs]
    for admission in outcome["admissions"]:
        compiled, course = programs[admission.program], story.courses[admission.tag]
        tensors = compiled.tensors[scenario.samples[admission.sample].image]
        where = f"sample {admission.tag} in slot {admission.slot}, arena {admission.base:#x}"
        _check_memory(tables[admission.program], config, admission, course, tensors, where)
        _check_answer(compiled, scenario, admission, course, tensors, where)
    _check_rest_of_memory(programs, scenario, outcome)
    _check_completions(outcome, story)
    _check_counters(tables, outcome, story)
    return story


class _Places:
    """Where each operation of a program writes: tensor, its channels, its lines; and what a fragment loads."""

    def __init__(self, compiled, words_per_beat):
        self.compiled, program = compiled, compiled.program
        self.words_per_beat = words_per_beat
        self.program = program
        words = np.frombuffer(program.region[: len(program.ops) * isa.DESCRIPTOR_BYTES], "<u4")
        words = words.reshape(len(program.ops), isa.DESCRIPTOR_WORDS)
        self.ops = [isa.decode(isa.DESCRIPTOR_FIELDS, w) for w in words]
        self.layers = program_operations(program.region, len(program.ops))

    def tensor(self, op):
        """(TensorPlace, first channel) of the output of operation ``op``."""
        place = self.program.tensors[self.program.ops[op].tensor]
        low = self.ops[op]["out_offset"] - place.offset
        channels = place.channels * (place.width // self.ops[op]["out_w"])  # pairs of pixels are seen as one
        assert 0 <= low < channels, f"operation {op} writes to offset {place.offset + low}, not to {place.name}"
        return place, low

    def write(self, arena, op, fragment, source):
        """Put a fragment's lines of the tensor ``source(TensorPlace)`` [h, w, c] into an image of the arena."""
        d, (place, low) = self.ops[op], self.tensor(op)
        values, channels = source(place).reshape(place.height, d["out_w"], -1), slice(low, low + d["out_channels"])
        bus = self.program.bus_bytes
        pixel = d["out_pixel_beats"] * bus // (self.words_per_beat if d["out_packed"] else 1)
        for line in range(fragment.first, fragment.first + fragment.lines):
            row, segment = divmod(line, d["nseg"])
            for x in range(segment * d["seg_w"], min((segment + 1) * d["seg_w"], d["out_w"])):
                at = d["out_offset"] + row * d["out_line_beats"] * bus + x * pixel
                arena[at : at + d["out_channels"]] = values[row, x, channels]

    def pixels(self, op, fragment):
        """Output pixels of a fragment."""
        d = self.ops[op]
        segments = [line % d["nseg"] for line in range(fragment.first, fragment.first + fragment.lines)]
        return sum(min(d["out_w"] - s * d["seg_w"], d["seg_w"]) for s in segments)

    def written_bytes(self, op, fragment):
        """Bytes that a fragment writes."""
        return self.pixels(op, fragment) * self.ops[op]["out_channels"]

    def stripe_beats(self, op, fragment):
        """Beats that a fragment loads."""
        d, rows = self.ops[op], self.layers[op].stripe_rows(fragment)
        if d["nseg"] == 1:
            pixels = ceil(d["in_w"] / self.words_per_beat) if d["in_packed"] else d["in_w"]
            return len(rows) * pixels * d["in_pixel_beats"]
        beats = 0
        segment = fragment.first % d["nseg"]
        assert fragment.lines == 1
        left = segment * d["seg_w"] * d["sx"] - d["pad_left"]
        inside = min(d["in_w"], left + d["stripe_pixels"]) - max(0, left)
        beats += len(rows) * max(0, inside) * d["in_pixel_beats"]
        return beats


def _check_memory(places, config, admission, course, tensors, where):
    """The arena holds exactly the lines of the tiles that started, and what was there before."""
    expected = admission.before.copy()
    for op, fragment in course.fragments:
        places.write(expected, op, fragment, lambda place: tensors[place.name].view(np.uint8))
    assert admission.after is not None, f"{where}: no completion"
    unknown = np.zeros(expected.size, bool)
    for op, fragment in course.late:
        places.write(unknown, op, fragment, lambda place: np.ones((place.height, place.width, place.channels), bool))
    expected[unknown] = admission.after[unknown]
    wrong = np.flatnonzero(expected != admission.after)
    if not wrong.size:
        return
    at = int(wrong[0])
    names = {name for name, p in places.program.tensors.items() if 0 <= at - p.offset < _bytes(p, config.bus_bytes)}
    ops = [i for i, d in enumerate(places.ops) if d["op"] in LAYERS and places.tensor(i)[0].name in names]
    raise AssertionError(
        f"{where}: {wrong.size} of {expected.size} bytes differ from the reference, first at offset {at} (tensors "
        f"{sorted(names)}, operations {ops}): {admission.after[at]}, expected {expected[at]}, before "
        f"{admission.before[at]}; descriptors {[places.ops[i] for i in ops]}; "
        f"fragments {[f for f in course.fragments if f[0] in ops]}"
    )


def _bytes(place, bus_bytes):
    return place.height * place.line_beats * bus_bytes


def _check_answer(compiled, scenario, admission, course, tensors, where):
    """Decisions and completion of one sample."""
    network, completion = compiled.network, admission.completion
    for _, e, top, spread in course.decisions:
        exit = network.ends[e]
        found = top_and_spread(tensors[exit.logits.name][0, 0, : exit.classes], exit_table(exit.scale, exit.beta))
        expected = tuple(int(v) for v in found)
        assert (top, spread) == expected, f"{where}: exit {e} found (class, S) {(top, spread)}, expected {expected}"
    assert course.released, f"{where}: completion without a release"
    assert completion["tag"] == admission.tag, f"{where}: completion {completion}"
    status = Status(completion["status"])
    assert status in (Status.OK, Status.CANCELLED), f"{where}: {completion}"
    if status == Status.CANCELLED:
        assert course.cancelled, f"{where}: cancelled by nobody"
        return
    if not {"leave", "limit"} & set(scenario.weights) and not course.left:
        limits = scenario.programs[admission.program].limits
        due = decide(network, tensors, limits, admission.exits)
        answer = tuple(completion[name] for name in ("exit", "top", "spread"))
        assert answer == (due.exit, due.top, due.spread), f"{where}: (exit, class, S) {answer}, expected {due}"
    made = [d for d in course.decisions if d[1] == completion["exit"]]
    assert made and made[0][2:] == (completion["top"], completion["spread"]), f"{where}: {completion}, {made}"
    _check_path(compiled, scenario, admission, course, where)


def _check_path(compiled, scenario, admission, course, where):
    """The sample ran every line of every layer on its way, and no other layer."""
    taken, last = admission.completion["exit"], len(compiled.network.ends) - 1
    ops, end = compiled.program.ops, last if scenario.rigid else taken
    done = {}
    for op, fragment in course.fragments:
        assert fragment.first == done.get(op, 0), f"{where}: operation {op} at line {fragment.first} after {done}"
        done[op] = fragment.first + fragment.lines
    decided = [e for _, e, _, _ in course.decisions]
    assert decided == sorted(set(decided)), f"{where}: decisions at exits {decided}"
    for e in range(end + 1):
        enabled = admission.exits >> e & 1 or e == last
        if not course.left:
            assert (e in decided) == bool(enabled), f"{where}: exits {admission.exits:#x}, decided at {decided}"
        elif enabled:
            assert e in decided, f"{where}: exits {admission.exits:#x}, decided at {decided}"
    stop = compiled.program.exits[end].op
    lines = {
        i: op.lines
        for i, op in enumerate(program_operations(compiled.program.region, len(ops)))
        if i < stop and ops[i].op in {layer.name for layer in LAYERS} and (ops[i].head in (-1, *decided))
    }
    assert done == lines, f"{where}: lines per operation {done}, expected {lines}"


def _check_rest_of_memory(programs, scenario, outcome):
    """Memory is what it was, but for programs and arenas; an arena is as its last sample left it."""
    expected = scenario.initial_memory()
    for (base, size), compiled in zip(outcome["regions"], programs, strict=True):
        expected[base : base + size] = np.frombuffer(compiled.program.region, np.uint8)
    found = expected.copy()
    found[outcome["changed"]] = outcome["bytes"]
    for a in sorted(outcome["admissions"], key=lambda a: a.popped):
        expected[a.base : a.base + a.size] = a.after
    wrong = np.flatnonzero(found != expected)
    assert not wrong.size, f"{wrong.size} bytes changed that nobody may write, first at {wrong[0]:#x}"


def _check_completions(outcome, story):
    """Exactly one completion per ADMIT, the same ones that the engine model posted, in its order."""
    tags = [a.tag for a in outcome["admissions"]]
    ended = [c for c in story.played.completions if c.status in (Status.OK, Status.CANCELLED, Status.FAILED)]
    assert sorted(c.tag for c in ended) == sorted(tags), "completions and admissions do not match"
    by_tag = {a.tag: a.completion for a in outcome["admissions"]}
    for model in ended:
        seen = by_tag[model.tag]
        fields = {"status": model.status, "slot": model.slot, "code": model.code}
        fields |= {"stamp_low": model.stamp & 0xFFFFFFFF, "stamp_high": model.stamp >> 32}
        if model.status == Status.OK:
            fields |= {"exit": model.exit, "top": model.top, "spread": model.spread}
        assert {k: seen[k] for k in fields} == fields, f"completion {seen}, the model posted {model}"
    answers = [c for c in story.played.completions if c.status in (Status.ERROR, Status.FENCE)]
    posted = [(int(c.status), int(c.code), c.tag) for c in answers]
    assert [(a["status"], a["code"], a["tag"]) for a in outcome["answers"]] == posted, "answers of commands"


def _check_counters(tables, outcome, story):
    """Causes add up to the elapsed cycles; events, beats and bursts are those that were seen."""
    counters, memory = outcome["counters"], outcome["statistics"]
    total = sum(counters[f"cycles_{cause}"] for cause in isa.CAUSES)
    assert total == outcome["latched"] + LATCH_DELAY, f"cycles add up to {total}, latched at {outcome['latched']}"
    assert outcome["status"] & 3 == 0, f"STATUS is {outcome['status']:#x} after the end"
    assert counters["tiles"] == len(story.tiles)
    assert counters["revocations"] == story.revocations
    reads = sum(counters[f"{client}_beats"] for client in ("weight", "residual", "stripe", "descriptor", "exit"))
    assert reads == memory.read_beats and counters["read_bursts"] == memory.read_bursts
    assert counters["write_beats"] == memory.write_beats and counters["write_bursts"] == memory.write_bursts
    needed = dict.fromkeys(("weight_beats", "stripe_beats", "residual_beats"), 0)
    for tile in story.tiles:
        needed["weight_beats"] += story.descriptor(tile)[f"weight_beats{tile.variant}"]
        needed["stripe_beats"] += story.stripe_beats(tile)
        needed["residual_beats"] += story.residual_beats(tile)
    for name, beats in needed.items():
        assert counters[name] >= beats, f"{name} is {counters[name]}, the tiles need {beats}"
        assert story.revocations or counters[name] == beats, f"{name} is {counters[name]}, the tiles need {beats}"
    written = sum(
        tables[c.program].written_bytes(op, f) for c in story.courses.values() for op, f in c.fragments + c.late
    )
    assert memory.written_bytes == written, f"{memory.written_bytes} bytes written, the lines hold {written}"


def runs_per_layer(tiles):
    """Runs of a layer (consecutive tiles of it) per layer visited: 1.00 is perfect merging."""
    pcs = [tile.pc for tile in tiles]
    runs = sum(1 for i, pc in enumerate(pcs) if i == 0 or pcs[i - 1] != pc)
    return runs / len(set(pcs)) if pcs else 1.0


def run_checked(config, build, cases, function=play_all, **arguments):
    """Run and check cases, (list of Compiled, Scenario), in one simulator; list of (Story, outcome).

    A failure names the scenario's seed. ``function``: takes ``scenarios`` and ``arguments``, returns their outcomes.
    """
    scenarios = [scenario for _, scenario in cases]
    outcomes = run_in_simulator(build, function, timeout=900, scenarios=scenarios, **arguments)
    results = []
    for (programs, scenario), outcome in zip(cases, outcomes, strict=True):
        try:
            results.append((check_outcome(config, programs, scenario, outcome), outcome))
        except AssertionError as error:
            raise AssertionError(f"{config.name}, scenario with seed {scenario.seed}: {error}") from error
    return results
