"""What stands around the engine in tests: host, stripe loader and weight streamer, array, output writer.

Each agent has ``drive(ctx)``, which sets the inputs of the present cycle, and is told what the engine did in it
afterwards. Times, stalls and errors are random.
"""

from collections import deque
from dataclasses import dataclass, field

from fluidnpu.hw import isa
from fluidnpu.hw.isa import LIMIT_ALWAYS, Code, Opcode, Status, make_pc

__all__ = ["ArrayAgent", "Host", "Loader", "Writer"]

SPREAD_ONE = 1 << 16


class Host:
    """Random commands, pops after a while, a soft reset now and then; at the end everybody may run.

    queue : (opcode, fields, words) not executed; accepted: those, as the replay wants them
    """

    def __init__(self, bench, samples, resets):
        self.bench, self.rng = bench, bench.rng
        self.samples_left = samples
        self.pop_delays = (0, 1, 10, 500)
        self.pausing = 0  # chance per cycle that everybody in a shared announced tile is paused
        self.resume_at = None
        self.careful = 0.75  # chance that an ADMIT names a free slot
        self.always = False  # everybody is admitted runnable and riding
        self.reset_at = [self.rng.randint(300, 2500) for _ in range(resets)]
        self.ranks = self.rng.choice([(1,), (1, 1, 1, 2), range(4), range(256)])
        self.gaps = self.rng.choice([(0, 5), (0, 20, 200), (100, 400, 1500)])
        self.chatter = self.rng.choice([0.1, 0.5, 2.0])
        self.queue = deque()
        self.next_at = 0
        self.finished = False
        self.pops = deque()  # (cycle, slot)
        self.popped = None  # slot whose completion is popped in this cycle
        self.tag = 0
        self.resetting = False

    def accepted(self):
        """Iterator over (opcode, fields) for the replay: whatever stands at the head when it executes."""
        while True:
            opcode, fields, _ = self.queue.popleft()
            yield opcode, fields

    def push(self, opcode, **fields):
        known = opcode in tuple(Opcode)
        words = isa.encode(isa.COMMANDS[opcode], fields, isa.COMMAND_WORDS, "command") if known else [0] * 5
        self.queue.append((opcode, fields if known else {}, words))

    def think(self):
        """Queue what comes next, if it is time."""
        rng, config, now = self.rng, self.bench.config, self.bench.cycle
        self.pause(now)
        if self.finished or now < self.next_at or len(self.queue) > 8:
            return
        self.next_at = now + rng.choice(self.gaps)
        mask = rng.getrandbits(config.slots)
        if not self.samples_left:
            if not self.queue and self.resume_at is None:
                self.push(Opcode.BATCH, slot_mask=0xFFFF, priority=1, runnable=1, ride=1, commit=1)
                self.finished = True
        elif rng.random() < 1 / (1 + self.chatter):
            self.admit()
        else:
            opcode = rng.choice([Opcode.BATCH] * 6 + [Opcode.LEAVE, Opcode.CANCEL, Opcode.FENCE, Opcode.LIMIT, 9])
            few = mask & rng.getrandbits(config.slots)
            fields = {
                Opcode.BATCH: {
                    "slot_mask": mask, "priority": rng.choice(self.ranks), "runnable": rng.random() < 0.85,
                    "ride": rng.random() < 0.85, "commit": rng.random() < 0.6,
                },
                Opcode.LEAVE: {"slot_mask": few},
                Opcode.CANCEL: {"slot_mask": few},
                Opcode.LIMIT: {
                    "program": rng.randrange(4), "exit": rng.choice([0, 1, 2, 15]),
                    "limit": rng.choice([0, SPREAD_ONE * 2, SPREAD_ONE * 6, LIMIT_ALWAYS]),
                },
                Opcode.FENCE: {"tag": rng.getrandbits(32)},
            }.get(opcode, {})  # fmt: skip
            self.push(opcode, **{name: int(value) for name, value in fields.items()})

    def pause(self, now):
        """Take the members of a shared tile back for a while, one after the other."""
        tile = self.bench.model.next
        if self.resume_at is None:
            if self.pausing and tile and len(tile.members) > 1 and self.rng.random() < self.pausing:
                for s in tile.members:
                    self.push(Opcode.BATCH, slot_mask=1 << s, priority=1, runnable=0, ride=1, commit=1)
                self.resume_at = now + self.rng.choice([10, 60])
        elif now >= self.resume_at and not self.queue:
            self.push(Opcode.BATCH, slot_mask=0xFFFF, priority=1, runnable=1, ride=1, commit=1)
            self.resume_at = None

    def admit(self):
        rng, config = self.rng, self.bench.config
        self.samples_left -= 1
        self.tag += 1
        bus = config.bus_bytes
        free = [s for s, slot in enumerate(self.bench.model.slots) if slot is None]
        slot = rng.choice(free) if free and rng.random() < self.careful else rng.randrange(config.slots)
        fields = {
            "slot": slot, "tag": self.tag, "pc": make_pc(rng.choice(list(self.bench.programs.fields)), 0),
            "arena_base": 0x4000_0000 + rng.randrange(0, 1 << 28, bus), "arena_bytes": 0x1000_0000,
            "priority": rng.choice(self.ranks), "runnable": int(self.always or rng.random() < 0.9),
            "ride": int(self.always or rng.random() < 0.8),
            "exits": rng.getrandbits(16),
        }  # fmt: skip
        if rng.random() < 0.05:
            wrong = {"slot": config.slots % 16, "pc": 0x3000, "arena_bytes": 0, "arena_base": 1}
            name = rng.choice(list(wrong))
            fields[name] = wrong[name]
        self.push(Opcode.ADMIT, **fields)

    def drive(self, ctx, pins):
        engine, now = self.bench.engine, self.bench.cycle
        self.think()
        reset = now in self.reset_at and not self.resetting
        pins.set(ctx, engine.soft_reset, int(reset))
        if reset:
            self.resetting = True
            self.queue.clear()
            self.pops.clear()
            self.bench.model.begin_reset()
        offered = bool(self.queue) and not self.resetting
        pins.set(ctx, engine.command.valid, int(offered))
        if offered:
            opcode, _, words = self.queue[0]
            pins.set(ctx, engine.command.p, {"opcode": opcode, "words": words})
        self.popped = self.pops.popleft()[1] if self.pops and self.pops[0][0] <= now else None
        pins.set(ctx, engine.popped, int(self.popped is not None))
        if self.popped is not None:
            pins.set(ctx, engine.popped_slot, self.popped)

    def completed(self, completion):
        if completion.status in (Status.OK, Status.CANCELLED, Status.FAILED):
            delay = self.rng.choice(self.pop_delays)
            last = self.pops[-1][0] + 1 if self.pops else 0
            self.pops.append((max(last, self.bench.cycle + 1 + delay), completion.slot))

    def reset_done(self):
        self.resetting = False
        self.queue.clear()
        self.pops.clear()


@dataclass(eq=False)
class _Reads:
    """One kind of reads: its error code, the engine's ports, and rows (slot, last producer line or None) to come."""

    code: Code
    there_slot: object
    there_pc: object
    there_line: object
    waiting: object
    fault: object
    fault_code: object
    rows: deque = field(default_factory=deque)


class Loader:
    """The loaders and the weight streamer: input rows and rows of second operands, each kind in order, when there."""

    def __init__(self, bench, latency, errors):
        self.bench, self.rng = bench, bench.rng
        self.latency, self.errors = latency, errors
        engine = bench.engine
        self.kinds = [
            _Reads(
                Code.STRIPE_READ, engine.there_slot, engine.there_pc, engine.there_line, engine.waiting,
                engine.load_fault, engine.load_fault_code,
            ),
            _Reads(
                Code.RESIDUAL_READ, engine.residual_there_slot, engine.residual_there_pc, engine.residual_there_line,
                engine.residual_waiting, engine.residual_fault, engine.residual_fault_code,
            ),
        ]  # fmt: skip
        self.in_flight = deque()  # (cycle, slot, kind)
        self.dropped = deque()
        self.loaded = False
        self.active = False  # there is an announced tile
        self.begin_at = 0
        self.weights = None  # cycle at which the announced tile's weights fail
        self.running_weights = None
        self.drain_at = 0
        self.dropping = False

    @property
    def left(self):
        """Rows of the announced tile that were not asked for."""
        return sum(len(kind.rows) for kind in self.kinds)

    def announced(self, tile, layer, program):
        """Take over a tile of the model's."""
        stripes, residuals = self.kinds
        for f in tile.fragments:
            stripes.rows += [(f.slot, layer.row_position(program, row)) for row in layer.stripe_rows(f)]
            lines = range(f.first, f.first + f.lines) if layer.residual else ()
            residuals.rows += [(f.slot, layer.residual_position(program, line)) for line in lines]
        now = self.bench.cycle
        self.weights = now + self.rng.randint(1, 40) if self.rng.random() < self.errors * 4 else None
        self.begin_at = now + self.rng.choice([1, 8])
        self.active = True

    def revoked(self):
        self.dropped, self.in_flight = self.in_flight, deque()
        for kind in self.kinds:
            kind.rows.clear()
        self.active, self.loaded, self.dropping = False, False, True
        self.drain_at = self.bench.cycle + self.rng.choice([1, 1, 5])

    def started(self):
        self.active, self.loaded = False, False
        self.running_weights, self.weights = self.weights, None

    def drive(self, ctx, pins):
        bench, rng, engine, now = self.bench, self.rng, self.bench.engine, self.bench.cycle
        for kind in self.kinds:
            waiting = False
            if self.active and kind.rows and now >= self.begin_at and len(self.in_flight) < 8:
                slot, position = kind.rows[0]
                pins.set(ctx, kind.there_slot, slot)
                there = position is None or position < (ctx.get(kind.there_pc), ctx.get(kind.there_line))
                assert there == bench.model.there(slot, position), f"slot {slot}: {position} there? {there}"
                waiting = not there
                if there and rng.random() < 0.8:
                    kind.rows.popleft()
                    bench.check_row(slot, position)
                    last = self.in_flight[-1][0] if self.in_flight else 0
                    self.in_flight.append((max(last + 1, now + rng.randint(1, self.latency)), slot, kind))
            pins.set(ctx, kind.waiting, int(waiting))
        faults = dict.fromkeys(self.kinds, (0, 0))
        for reads in (self.dropped, self.in_flight):
            if reads and reads[0][0] <= now and not any(mask for mask, _ in faults.values()):
                _, slot, kind = reads.popleft()
                if rng.random() < self.errors:
                    code = rng.choice([kind.code, Code.ADDRESS])
                    faults[kind] = 1 << slot, code
                    bench.inject([slot], code)
        for kind, (mask, code) in faults.items():
            pins.set(ctx, kind.fault, mask)
            pins.set(ctx, kind.fault_code, int(code))
        if self.active and not self.left and not self.in_flight and now >= self.begin_at:
            self.loaded = True
        if self.dropping and not self.dropped and now >= self.drain_at:
            self.dropping, self.weights = False, None
        pins.set(ctx, engine.loaded, int(self.loaded))
        pins.set(ctx, engine.drained, int(not self.dropping))
        self.weight_errors(ctx, pins, now)

    def weight_errors(self, ctx, pins, now):
        bench, engine = self.bench, self.bench.engine
        error = code = 0
        for attribute, members in (("running_weights", bench.array.members), ("weights", bench.next_members)):
            at = getattr(self, attribute)
            if at is not None and at <= now and not error:
                setattr(self, attribute, None)
                error, code = 1, self.rng.choice([Code.WEIGHT_READ, Code.ADDRESS])
                pins.set(ctx, engine.weight_error_next, int(attribute == "weights"))
                bench.inject(members, code)
        pins.set(ctx, engine.weight_error, error)
        pins.set(ctx, engine.weight_error_code, int(code))


class ArrayAgent:
    """The array: takes a tile when idle or in the last cycle of the running one."""

    def __init__(self, bench, longest):
        self.bench, self.rng, self.longest = bench, bench.rng, longest
        self.left = 0  # cycles of the running tile
        self.half = 1
        self.members = ()
        self.half_busy = [0, 0]  # until this cycle

    def drive(self, ctx, pins):
        engine, now = self.bench.engine, self.bench.cycle
        last = self.left == 1
        if last and self.bench.loader.running_weights is not None:
            self.left, last = 2, False  # its weights are not all there
        self.ready = self.left == 0 or last
        pins.set(ctx, engine.start_ready, int(self.ready))
        free = [not (self.left and self.half == h) and self.half_busy[h] <= now for h in range(2)]
        pins.set(ctx, engine.half_free, free[0] | free[1] << 1)
        if now % 16 == 0:
            for stream in (engine.post, engine.write):
                pins.set(ctx, stream.ready, int(self.rng.random() < 0.9))

    def step(self):
        """A cycle passes."""
        if self.left:
            self.left -= 1
            if not self.left:
                self.half_busy[self.half] = self.bench.cycle + self.rng.choice([0, 0, 3])

    def started(self, half, members):
        assert not self.left, "a tile starts while another one runs"
        self.left = self.rng.randint(1, self.longest)
        self.half, self.members = half, members


class Writer:
    """The output writer: per started tile an event for every member's last line, and one when all is written."""

    def __init__(self, bench, latency, errors):
        self.bench, self.rng = bench, bench.rng
        self.latency, self.errors = latency, errors
        self.events = deque()  # (cycle, fields)
        self.last = 0

    def started(self, tile, fragments, context):
        """``tile``: the write_tile payload; ``fragments``: its list, as the writer's port shows it."""
        rng = self.rng
        at = max(self.last, self.bench.cycle + self.bench.array.left)
        events = []
        for f in fragments:
            for line in range(f.line + 1, f.line + f.lines + 1):
                error = rng.random() < self.errors
                code = rng.choice([Code.WRITE, Code.ADDRESS])
                if error and rng.random() < 0.5:
                    events.append({"slot": f.slot, "error": 1, "code": int(code)})
                    error = False
                pc, position = (tile.pc, line) if line < tile.lines else (tile.pc + 1, 0)
                done = {"slot": f.slot, "done": 1, "pc": pc, "line": position, "context": context}
                events.append(done | ({"error": 1, "code": int(code)} if error else {}))
        if rng.random() < 0.5:
            events.append({"slot": rng.randrange(self.bench.config.slots)})
        events[-1] |= {"retire": 1, "context": context}
        for event in events:
            at += rng.choice([0, 1, rng.randint(1, self.latency)])
            self.events.append((at, event))
        self.last = at

    def drive(self, ctx, pins):
        event = self.bench.engine.write_event
        valid = bool(self.events) and self.events[0][0] <= self.bench.cycle
        pins.set(ctx, event.valid, int(valid))
        if valid:
            fields = self.events[0][1]
            names = ("slot", "context", "done", "pc", "line", "retire", "error", "code")
            pins.set(ctx, event.p, {name: fields.get(name, 0) for name in names})
            if fields.get("error") and not fields.get("told"):
                fields["told"] = 1
                self.bench.inject([fields["slot"]], fields["code"])

    def taken(self):
        self.events.popleft()
