"""A random world around the engine model: commands, memory latencies and errors, exit decisions.

`simulate(seed)` runs one world until every admitted sample is released and raises `ModelViolation` when anything that
the algorithm promises does not hold: every line exactly once and in order, no read before its writes, no tile with a
sample that left, tiles dealt as the rule says, release with nothing outstanding, no deadlock.
"""

import random
from collections import Counter, deque
from dataclasses import replace
from heapq import heappop, heappush

from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import LIMIT_ALWAYS, PC_INDEX_BITS, Code, Opcode, Status, make_pc

from .engine_layers import Bad, Layer
from .engine_model import EngineModel
from .engine_oracle import INDEX_MASK, Oracle, Sample, WorldStats, random_program, require

__all__ = ["World", "simulate"]

ARENA_BYTES = 4096
SPREAD_ONE = 1 << 16  # S of a certain decision
READS = (Code.STRIPE_READ, Code.RESIDUAL_READ)  # kinds of reads of a dealt tile, by the code of an error
MOST_CYCLES = 10_000_000  # far beyond any legal run: a live lock


class World:
    """The engine model in a world of its own: host, array, memory and exit unit with random times and errors.

    Parameters
    ----------
    seed : everything random derives from it
    samples : ADMIT commands with a legal slot that the host tries
    strict : the sequencer's priority is respected; otherwise actions come in random order, some late
    errors : chance of an error per memory transaction
    """

    def __init__(self, seed, samples=10, rigid=None, unstacked=None, strict=None, errors=None):
        self.rng = rng = random.Random(seed)
        self.strict = rng.random() < 0.5 if strict is None else strict
        rigid, unstacked = (rng.random() < 0.2 if mode is None else mode for mode in (rigid, unstacked))
        self.errors = rng.choice([0, 0, 0, 0.002, 0.01]) if errors is None else errors
        config = replace(
            get_config("tiny"),
            slots=rng.choice([2, 4, 8, 8]),
            max_stack=rng.choice([1, 2, 4]),
            trackers=rng.randint(1, 3),
        )
        bad = rng.choice([0, 0, 0.03]) if self.errors else 0
        numbers = rng.sample(range(config.programs), rng.choice([1, 1, 2]))
        programs = {n: random_program(rng, rng.randint(1, 4), bad) for n in numbers}
        self.model = EngineModel(config, programs, rigid=rigid, unstacked=unstacked, strict=self.strict)
        self.oracle = Oracle(programs)
        self.stats = WorldStats()
        self.latency = rng.choice([1, 5, 40])
        self.samples_left = samples
        self.gaps = rng.choice([(0, 1), (0, 1, 20), (1, 20, 200)])  # cycles between commands
        self.ranks = rng.choice([(1,), (1, 1, 1, 2), range(4), range(256)])  # priorities
        self.chatter = rng.choice([0.1, 0.5, 2.0])  # other commands per ADMIT
        self.now = self.sequence = 0
        self.events = []
        self.queue = deque()
        self.host_done, self.array_free = False, True
        self.reads = {code: deque() for code in READS}  # (slot, row or line) of the dealt tile, not issued
        self.in_flight = self.last_read = self.last_write = 0
        self.overtaken = Counter()
        self.tags = {}
        self.posted_tags = set()

    def after(self, delay, action, *arguments):
        """Call ``action`` in ``delay`` cycles; what falls on one cycle happens in the order of scheduling."""
        self.sequence += 1
        heappush(self.events, (self.now + delay, self.sequence, action, arguments))

    def delay(self):
        """A random memory latency, cycles."""
        return self.rng.randint(1, self.latency)

    def run(self):
        """Run to the end; returns WorldStats."""
        self.after(0, self.host)
        while self.events:
            self.now, _, action, arguments = heappop(self.events)
            require(self.now < MOST_CYCLES, "no end in sight")
            action(*arguments)
            self.check_state()
            self.sequencer()
        live = self.model.live()
        require(not self.queue and not live, f"deadlock: slots {live} live, {len(self.queue)} commands queued")
        require(self.model.next is None and not self.model.started, "work is left over")
        require(set(self.tags) == self.posted_tags, "samples without a completion")
        self.stats.cycles = self.now
        return self.stats

    # --- host ---

    def host(self):
        """Queue a random command and come back later; at the end let everybody run."""
        rng, config = self.rng, self.model.config
        mask = rng.getrandbits(config.slots)
        if self.samples_left == 0:
            if self.queue:
                self.after(50, self.host)
                return
            batch = {"slot_mask": 0xFFFF, "priority": 1, "runnable": 1, "ride": 1, "commit": 1}
            self.queue.append((Opcode.BATCH, batch))
            self.host_done = True
            return
        if rng.random() < 1 / (1 + self.chatter):
            self.samples_left -= 1
            number = rng.choice(list(self.model.programs))
            fields = {
                "slot": rng.randrange(config.slots), "tag": self.samples_left, "pc": make_pc(number, 0),
                "arena_base": 0x1000, "arena_bytes": ARENA_BYTES, "priority": rng.choice(self.ranks),
                "runnable": rng.random() < 0.9, "ride": rng.random() < 0.8, "exits": rng.getrandbits(16),
            }  # fmt: skip
            if rng.random() < 0.05:
                wrong = {"slot": config.slots, "pc": make_pc(number, 0x3000), "arena_bytes": 0, "arena_base": 1}
                name = rng.choice(list(wrong))
                fields[name] = wrong[name]
            self.queue.append((Opcode.ADMIT, fields))
        else:
            opcode = rng.choice([Opcode.BATCH] * 6 + [Opcode.LEAVE, Opcode.CANCEL, Opcode.FENCE, Opcode.LIMIT, 9])
            fields = {
                Opcode.BATCH: {
                    "slot_mask": mask, "priority": rng.choice(self.ranks), "runnable": rng.random() < 0.85,
                    "ride": rng.random() < 0.85, "commit": rng.random() < 0.6,
                },
                Opcode.LEAVE: {"slot_mask": mask & rng.getrandbits(8)},
                Opcode.CANCEL: {"slot_mask": mask & rng.getrandbits(8)},
                Opcode.LIMIT: {
                    "program": rng.randrange(4), "exit": rng.randrange(4),
                    "limit": rng.choice([0, SPREAD_ONE * 2, LIMIT_ALWAYS]),
                },
            }.get(opcode, {})  # fmt: skip
            self.queue.append((opcode, fields))
        self.after(rng.choice(self.gaps), self.host)

    def command(self):
        """Execute the head of the queue unless it is a FENCE that waits."""
        opcode, fields = self.queue[0]
        if opcode == Opcode.FENCE and self.model.fence_blocks():
            return False
        self.queue.popleft()
        slot = fields.get("slot")
        free = slot is not None and slot < len(self.model.slots) and self.model.slots[slot] is None
        completion = self.model.execute_command(opcode, self.now, **fields)
        if opcode == Opcode.FENCE:
            require(completion.status == Status.FENCE, "a FENCE without its completion")
            require(not any(self.model.slots[s].cancelled for s in self.model.live()), "FENCE passed too early")
        elif completion is not None:
            require(completion.status == Status.ERROR and completion.code != Code.NONE, "no error code")
        elif opcode == Opcode.ADMIT:
            require(free, f"slot {slot} is admitted twice")
            if not self.oracle.samples:
                self.stats.layer_starts.append(None)
            self.oracle.samples[slot] = Sample(fields["pc"], len(self.tags))
            self.tags[fields["tag"]] = slot
        if opcode == Opcode.BATCH and fields.get("commit"):
            self.overtaken.clear()
        return True

    # --- the engine ---

    def sequencer(self):
        """Do what is possible now: in the sequencer's priority, or (not strict) anything and some of it later."""
        while True:
            actions = [a for a in self.model.enabled_actions() if a[0] != "start" or self.loaded()]
            if self.queue and not (self.queue[0][0] == Opcode.FENCE and self.model.fence_blocks()):
                actions.insert(0, ("command",))
            faults = [s for s in self.model.live() if self.model.eligible(s) and isinstance(self.model.op(s), Bad)]
            if faults:
                self.model.memory_error(Code.DESCRIPTOR, faults[:1])
                continue
            self.issue_reads()
            if not actions:
                self.check_rank()
                return
            if not self.strict:
                action = self.rng.choice(actions)
                if self.rng.random() < 0.2:
                    self.after(self.rng.randint(1, 5), int)  # an idle event: come back later
                    return
            else:  # start is independent of the rest
                action = actions[-1] if actions[-1] == ("start",) and self.rng.random() < 0.3 else actions[0]
            getattr(self, "do_" + action[0])(*action[1:])
            self.check_state()

    def loaded(self):
        """The array is free and every read of the dealt tile came back."""
        return self.array_free and not any(self.reads.values()) and not self.in_flight

    def do_command(self):
        self.command()

    def do_jump(self, s):
        sample = self.oracle.samples[s]
        op, slot = self.oracle.op(sample.pc), self.model.slots[s]
        enabled = slot.leave or slot.exits >> op.exit & 1
        base = sample.pc & ~INDEX_MASK
        sample.pc = sample.pc + 1 if enabled else base | op.target
        require(self.model.jump(s) == sample.pc, f"slot {s} jumps to the wrong place")

    def do_exit_start(self, s):
        self.oracle.at_exit(s)
        self.model.exit_start(s)
        self.after(self.delay(), self.exit_result, s)

    def exit_result(self, s):
        if self.rng.random() < self.errors:
            self.model.memory_error(Code.EXIT_READ, [s])
            return
        spread = self.rng.randint(SPREAD_ONE, 4 * SPREAD_ONE)
        sample, slot = self.oracle.samples[s], self.model.slots[s]
        op = self.oracle.op(sample.pc)
        limit = self.model.limits.get((sample.pc >> PC_INDEX_BITS, op.exit), 0)
        decides = slot.leave or 0 < limit == LIMIT_ALWAYS or spread <= limit
        outcome = self.model.exit_result(s, self.rng.randrange(10), spread, self.now)
        sample.finished = op.last or (decides and not self.model.rigid)
        require(outcome.finished == sample.finished, f"slot {s}: wrong decision at exit {op.exit}")
        sample.pc += not sample.finished

    def do_release(self, s):
        slot = self.model.slots[s]
        require(s != self.model.exit_slot, f"slot {s} is released from within the exit unit")
        completion = self.model.release(s, self.now)
        require(self.tags.get(completion.tag) == s, f"completion of slot {s} carries tag {completion.tag}")
        require(completion.tag not in self.posted_tags, f"tag {completion.tag} completes twice")
        self.posted_tags.add(completion.tag)
        self.oracle.released(s, completion.status, slot.finished or slot.cancelled or slot.failed != Code.NONE)
        self.stats.completions[completion.status.name] += 1
        self.overtaken.pop(s, None)
        self.after(self.rng.choice([0, 10, 100]), self.model.pop, s)

    def do_revoke(self):
        self.model.revoke()
        self.stats.revocations += 1
        self.reads = {code: deque() for code in READS}
        if not self.in_flight:
            self.after(1, self.model.drained)

    def do_deal(self):
        slots, group = self.model.slots, set(self.model.group)
        able = {
            s: (slots[s].priority, slots[s].ride)
            for s, sample in self.oracle.samples.items()
            if slots[s].runnable and not (slots[s].finished or slots[s].cancelled or slots[s].failed)
            if isinstance(self.oracle.op(sample.pc), Layer) and (not self.model.rigid or not group or s in group)
        }
        tile = self.model.deal()
        self.oracle.dealt(tile, able, self.model.config, self.model.unstacked)
        layer = self.oracle.op(tile.pc)
        self.reads[Code.STRIPE_READ].extend((f.slot, row) for f in tile.fragments for row in layer.stripe_rows(f))
        lines = [(f.slot, f.first + n) for f in tile.fragments for n in range(f.lines)]
        self.reads[Code.RESIDUAL_READ].extend(lines if layer.residual else ())
        if self.rng.random() < self.errors:
            self.model.memory_error(Code.WEIGHT_READ, tile.members)

    def issue_reads(self):
        """Issue the dealt tile's stripe and residual reads, each kind in order, each when its lines are there."""
        tile = self.model.next
        for code, reads in self.reads.items():
            stripe = code == Code.STRIPE_READ
            while tile is not None and reads and self.in_flight < 8:
                (s, place), layer = reads[0], self.oracle.op(tile.pc)
                position = (layer.row_position if stripe else layer.residual_position)(tile.pc >> PC_INDEX_BITS, place)
                if not self.model.there(s, position):
                    break
                written = self.oracle.row_written if stripe else self.oracle.residual_written
                ok = self.model.slots[s].ending or written(s, tile.pc, place)
                require(ok, f"slot {s}, pc {tile.pc}: {code.name} of {place} unwritten")
                reads.popleft()
                self.in_flight += 1
                self.last_read = max(self.last_read, self.now + self.delay())
                self.after(self.last_read - self.now, self.read_done, s, code)

    def read_done(self, s, code):
        self.in_flight -= 1
        require(s in self.model.live(), f"slot {s} was released with a read outstanding")
        if self.rng.random() < self.errors:
            self.model.memory_error(code, [s])
        if self.model.dropped is not None and not self.in_flight:
            self.after(0, self.model.drained)

    def do_start(self):
        tile = self.model.start()
        self.oracle.started(tile, {s for s in tile.members if self.model.slots[s].ending})
        self.stats.tiles += 1
        self.stats.shared += len(tile.members) > 1
        self.stats.stacked += len(tile.subtiles) > 1
        self.stats.lines += sum(f.lines for f in tile.fragments)
        self.stats.layer_starts.append(tile.pc)
        if self.strict:
            self.check_overtaking(tile)
        self.array_free = False
        busy = self.rng.randint(1, 10)
        self.after(busy, setattr, self, "array_free", True)
        self.last_write = max(self.last_write, self.now + busy)
        for s in self.rng.sample(tile.members, len(tile.members)):
            for number in range(sum(f.lines for f in tile.fragments if f.slot == s)):
                self.last_write += self.delay() if number == 0 else self.rng.randint(0, 2)
                self.after(self.last_write - self.now, self.written, s, tile, number)
        self.after(self.last_write - self.now, self.model.tile_drained, tile.number)

    def check_overtaking(self, tile):
        """Preemption bound: of the tiles that start while a slot outranks all their members, it sees one at most."""
        ranks = [self.model.slots[s].priority for s in tile.members if self.model.eligible(s)]
        for s in self.model.dealable():
            if s not in tile.end and all(self.model.slots[s].priority > rank for rank in ranks):
                self.overtaken[s] += 1
                require(self.overtaken[s] <= 1 or not ranks, f"slot {s} is overtaken twice")
        for s in tile.end:
            self.overtaken.pop(s, None)

    def written(self, s, tile, number):
        if self.rng.random() < self.errors:
            self.model.memory_error(Code.WRITE, [s])
        self.model.write_line(s)
        self.oracle.wrote(s, tile, number)

    # --- invariants of the state ---

    def check_rank(self):
        """With nothing left to do, the dealt tile has somebody who may run, and nobody at a layer outranks them."""
        tile, slots = self.model.next, self.model.slots
        if tile is not None:
            ranks = [slots[s].priority for s in tile.members if self.model.eligible(s)]
            outside = [slots[s].priority for s in self.model.dealable() if s not in tile.members]
            require(ranks and max(ranks) >= max(outside, default=0), f"tile {tile.number} does not give way")

    def check_state(self):
        """Structural invariants after every event and action."""
        model = self.model
        require(len(model.started) <= model.config.trackers, "more started tiles than tracker entries")
        for s in model.live():
            slot = model.slots[s]
            sample = self.oracle.samples.get(s)
            require(sample is not None, f"slot {s} is live without a sample")
            require(slot.done <= slot.issued, f"slot {s}: done {slot.done} is beyond issued {slot.issued}")
            place = model.next.before[s] if model.in_next(s) else slot.issued
            require(place == (sample.pc, sample.line), f"slot {s} stands at {place}, not {sample.pc, sample.line}")
            if model.in_next(s):
                require(slot.issued == model.next.end[s], f"slot {s} moved while in the dealt tile")
            require(model.writing(s) == bool(sample.outstanding), f"slot {s}: writes outstanding are not tracked")
        require(model.group <= set(model.live()), "the rigid group holds a slot that left")


def simulate(seed, **options):
    """Run one random world; returns WorldStats or raises ModelViolation."""
    return World(seed, **options).run()
