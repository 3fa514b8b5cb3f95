"""The whole engine in a random environment, every action replayed on the model (sim/engine_model.py)."""

import random
from collections import Counter, defaultdict
from dataclasses import replace

from amaranth.sim import Simulator
from fluidnpu.hw import isa
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.engine.engine import Engine
from fluidnpu.hw.isa import PC_INDEX_BITS, Code, EngineEvent, Opcode
from fluidnpu.sim.engine_model import EngineModel
from fluidnpu.sim.engine_oracle import merging
from fluidnpu.sim.engine_replay import EngineReplay

from .client_memory import ClientMemory, Pins
from .engine_agents import ArrayAgent, Host, Loader, Writer
from .engine_world import Programs, tile_fragments, tile_payloads

__all__ = ["EngineBench"]

ATOMIC = {EngineEvent.COMMAND, EngineEvent.DONE, EngineEvent.JUMP, EngineEvent.RETIRE, EngineEvent.RELEASE}


class EngineBench:
    """One random run; ``run()`` ends when every sample is released and raises AssertionError on any difference.

    Parameters (None: random)
    -------------------------
    seed : everything random derives from it
    samples : ADMIT commands; resets: soft resets; errors: chance of an error per transaction
    rigid, unstacked : the ablations
    config : NpuConfig; bad : chance that an operation is followed by one that breaks a rule
    latency : most cycles of a memory access
    most_lines : of a layer; few, and tiles hold lines of several samples

    Members: stats (Counter of events and statuses), layer_starts (see sim.engine_oracle.merging)
    """

    def __init__(
        self,
        seed,
        samples=8,
        rigid=None,
        unstacked=None,
        errors=None,
        resets=0,
        config=None,
        bad=None,
        latency=None,
        most_lines=64,
    ):
        self.rng = rng = random.Random(seed)
        rigid = rng.random() < 0.2 if rigid is None else rigid
        unstacked = rng.random() < 0.2 if unstacked is None else unstacked
        self.errors = rng.choice([0, 0, 0, 0.002, 0.01]) if errors is None else errors
        self.config = config or replace(
            CONFIGS["tiny"],
            slots=rng.choice([2, 4, 8]),
            max_stack=rng.choice([1, 2, 4]),
            trackers=rng.randint(1, 3),
        )
        if bad is None:
            bad = rng.choice([0, 0.03]) if self.errors else 0
        self.programs = programs = Programs(rng, self.config, bad, most_lines)

        self.engine = engine = Engine(self.config)
        self.model = EngineModel(self.config, programs.operations, rigid=rigid, unstacked=unstacked)
        latency = latency or rng.choice([1, 5, 40])
        self.host = Host(self, samples, resets)
        self.loader = Loader(self, latency, self.errors)
        self.array = ArrayAgent(self, rng.choice([2, 20, 100]))
        self.writer = Writer(self, latency, self.errors)
        memory = {"latency": latency, "rate": rng.choice([1.0, 0.7])}
        self.memories = [
            ClientMemory(self.config, client, programs.read, failing=failing, legal=self.legal, seed=seed, **memory)
            for client, failing in (
                (engine.descriptor_client, self.descriptor_fails),
                (engine.exit_client, self.exit_fails),
            )
        ]
        self.replay = EngineReplay(self.model, self.host.accepted())
        self.cycle = 0
        self.stats = Counter()
        self.layer_starts = []
        self.expected = defaultdict(set)  # slot -> codes with which it may fail
        self.must_fail = set()  # slots
        self.next_members = ()
        self.tile = None  # model tile that is announced
        self.decision = None  # (top, spread) that the exit unit has to find
        self.exit_failed = False
        self.deciding = None  # slot that the exit unit works for
        self.late_errors = set()  # pcs whose descriptor could not be read once
        self.posted = 0
        self.pins = Pins()

    # --- memory ---

    def legal(self, address, size, arena, owner):
        low, high = (self.model.slots[owner].arena_base, 1 << 28) if arena else (self.programs.base[owner], 1 << 19)
        assert low <= address and address + size <= low + high, f"{address:x} is not in region {owner} ({arena})"
        return True

    def descriptor_fails(self, address):
        if self.rng.random() >= self.errors:
            return False
        self.late_errors.add(self.programs.pc_of(address))
        return True

    def exit_fails(self, address):
        if self.rng.random() >= self.errors:
            return False
        self.exit_failed = True
        self.inject([self.deciding], Code.EXIT_READ)  # it may have failed otherwise meanwhile
        return True

    def inject(self, slots, code):
        """An error of these slots is under way: each has to fail, with this code or that of an earlier error."""
        for s in slots:
            assert s in self.model.live(), f"an error of slot {s}, which is not live"
            self.expected[s].add(Code(code))
            self.must_fail.add(s)

    # --- the run ---

    def run(self, most_cycles=200_000):
        engine = self.engine

        async def bench(ctx):
            for n in range(self.config.programs):
                ctx.set(engine.program_base[n], self.programs.base[n])
                ctx.set(engine.program_ops[n], len(self.programs.fields.get(n, ())))
            ctx.set(engine.rigid, self.model.rigid)
            ctx.set(engine.unstacked, self.model.unstacked)
            while not await self.step(ctx):
                assert self.cycle < most_cycles, f"deadlock: slots {self.model.live()} live, next {self.model.next}"

        sim = Simulator(engine)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        for memory in self.memories:
            sim.add_testbench(memory.serve, background=True)
        sim.run()
        self.finish()
        return self

    async def step(self, ctx):
        """One cycle; returns whether the run is over."""
        engine, pins = self.engine, self.pins
        self.clock = self.cycle & -16  # coarse: each new value costs time, and stamps show a wrong moment all the same
        pins.set(ctx, engine.cycle, self.clock)
        for agent in (self.host, self.loader, self.array, self.writer):
            agent.drive(ctx, pins)
        if self.cycle % 8 == 0:
            self.look = self.rng.randrange(self.config.slots)
        look = self.look
        pins.set(ctx, engine.view_slot, look)
        event = ctx.get(engine.trace) if ctx.get(engine.trace.valid) else None
        announce, revoke, start = ctx.get(engine.announce), ctx.get(engine.revoke), ctx.get(engine.start)
        posted = ctx.get(engine.completion_valid)
        given_back = ctx.get(engine.release_reservation)
        taken = ctx.get(engine.write_event.valid) and ctx.get(engine.write_event.ready)
        command = ctx.get(engine.command.valid) and ctx.get(engine.command.ready)
        assert announce + revoke + start <= 1
        view = self.view(look) if event is not None and EngineEvent(event.kind) in ATOMIC else None
        if start:
            self.check_start(ctx)
        words = [ctx.get(word) for word in engine.completion] if posted else None

        if event is not None:
            self.act(event)
        self.check_completion(words, event, given_back, command)
        if self.host.popped is not None:
            self.model.pop(self.host.popped)
        if taken:
            self.writer.taken()
        if announce:
            self.announced()
        if revoke:
            self.loader.revoked()
        self.array.step()
        if start:
            self.started(ctx)
        await ctx.tick()
        self.cycle += 1
        if announce:
            self.check_announced(ctx)
        if view is not None:
            self.stats["passed heads"] += view[4] != isa.SPREAD_NONE
            assert [ctx.get(word) for word in engine.view] == view, f"view of slot {look}, cycle {self.cycle}"
        assert ctx.get(engine.busy) == bool(self.model.live() or self.model.resetting)
        return self.host.finished and not self.host.queue and not self.model.live() and not self.host.pops

    def act(self, event):
        """Replay an event, and check what the model cannot know."""
        kind, slot = EngineEvent(event.kind), event.slot
        model = self.model
        if kind == EngineEvent.FAILED:
            self.check_failure(slot, event.data)
        if kind == EngineEvent.COMMAND and self.host.queue[0][0] == Opcode.ADMIT and not model.live():
            self.layer_starts.append(None)
        if kind == EngineEvent.EXIT_START:
            self.decision = self.programs.decide(model.slots[slot].arena_base, model.slots[slot].pc)
            self.exit_failed, self.deciding = False, slot
        if kind == EngineEvent.EXIT_RESULT:
            assert not self.exit_failed, "a decision without its data"
            assert (event.data & 0xFFFF, event.data2) == self.decision, f"slot {slot}, pc {event.pc}"
        if kind == EngineEvent.RELEASE:
            failed = model.slots[slot].failed != Code.NONE
            assert failed or slot not in self.must_fail, f"slot {slot} is released without its failure"
            self.must_fail.discard(slot)
            self.expected.pop(slot, None)
        if kind == EngineEvent.REVOKE:
            self.stats["shared tiles revoked"] += len(model.next.members) > 1
        if kind == EngineEvent.START:
            self.layer_starts.append(model.next.pc)
        if kind == EngineEvent.RESET:
            quiet = not (self.loader.in_flight or self.loader.dropped or self.writer.events or self.array.left)
            assert quiet and not model.started, "the reset ends before the work does"
            self.host.reset_done()
            self.must_fail.clear()
            self.expected.clear()
        self.replay.event(event.kind, slot, event.pc, event.line, event.data, event.data2, self.clock)
        self.stats[kind.name] += 1

    def check_failure(self, slot, code):
        """A failure has a cause: an injected error, or a descriptor that breaks a rule."""
        pc = self.model.slots[slot].pc
        if code == Code.DESCRIPTOR:
            assert self.programs.is_bad(pc), f"slot {slot} fails at a legal descriptor, pc {pc}"
        elif code == Code.DESCRIPTOR_READ:
            assert pc in self.late_errors
        else:
            assert code in self.expected[slot], f"slot {slot} fails with {Code(code).name}"

    def check_completion(self, words, event, given_back, command):
        """A completion is the model's; every executed command uses its reservation once."""
        if words is not None:
            completion = self.replay.completions[self.posted]
            self.posted += 1
            values = {name: int(getattr(completion, name)) for name in "status slot exit code top tag spread".split()}
            values |= {"stamp_low": completion.stamp & 0xFFFFFFFF, "stamp_high": completion.stamp >> 32}
            got = isa.decode(isa.COMPLETION_FIELDS, words)
            assert got == values, f"completion of slot {completion.slot}"
            self.stats[f"completion {completion.status.name}"] += 1
            self.host.completed(completion)
        assert self.posted == len(self.replay.completions), "a completion is missing"
        if command:
            admitted = event.data == Opcode.ADMIT and event.line == 0
            assert (words is not None) + given_back + admitted == 1, "the command's completion entry"
        else:
            assert not given_back

    def view(self, s):
        """The words of the slot view, from the model."""
        slot = self.model.slots[s]
        if slot is None or not slot.live:
            return None
        flags = (slot.runnable, slot.ride, slot.leave, slot.failed != 0, slot.cancelled)
        word = 1 | sum(bool(flag) << 3 + i for i, flag in enumerate(flags)) | slot.priority << 8 | slot.pc << 16
        return [word, slot.pc << 16 | slot.issued[1], slot.done[0] << 16 | slot.done[1], slot.tag, slot.spread]

    # --- the announced tile ---

    def announced(self):
        self.tile = tile = self.model.next
        n, index = divmod(tile.pc, 1 << PC_INDEX_BITS)
        self.next_members = tile.members
        self.descriptor = self.programs.at(tile.pc)
        self.loader.announced(tile, self.programs.operations[n][index], n)

    def check_announced(self, ctx):
        """Fragment list and tile as the loader and the array see them."""
        engine = self.engine
        expected = tile_fragments(self.tile, self.descriptor)
        assert ctx.get(engine.announced) and ctx.get(engine.next_fragments) == len(expected)
        for i, fragment in enumerate(expected):
            self.pins.set(ctx, engine.load_fragment_index, i)
            f = ctx.get(engine.load_fragment)
            assert (f.slot, f.sub_tile, f.line, f.row, f.seg, f.lines) == fragment
        self.check_tile(ctx)

    def check_tile(self, ctx):
        """Everything that the tile's users see follows from the descriptor and the dealt lines."""
        engine, d, v = self.engine, self.descriptor, self.tile.variant
        n = self.tile.pc >> PC_INDEX_BITS
        ports = {"array": engine.next_tile, "post": engine.post.p, "write": engine.write.p}
        payloads = tile_payloads(self.config, self.tile, d)
        for (what, port), wanted in zip(ports.items(), payloads, strict=True):
            got = ctx.get(port)
            for name, value in wanted.items():
                seen = getattr(got, name)
                seen = list(seen) if isinstance(value, list) else seen
                assert seen == value, f"{what}.{name} is {seen}, not {value}"
        assert ctx.get(engine.next_program) == n
        assert ctx.get(engine.next_weights) == self.programs.base[n] + d[f"weights{v}"]
        assert ctx.get(engine.next_weight_beats) == d[f"weight_beats{v}"]
        self.half = ctx.get(engine.next_tile.half)

    def check_row(self, slot, position):
        """The producer's lines of a row that is read are in memory, unless the sample ends."""
        state = self.model.slots[slot]
        assert position is None or state.ending or position < state.done

    def check_start(self, ctx):
        assert self.loader.loaded and self.array.ready
        for stream in (self.engine.post, self.engine.write):
            assert ctx.get(stream.valid) and ctx.get(stream.ready), "the tile's users do not take it at its start"
        self.check_tile(ctx)

    def started(self, ctx):
        engine = self.engine
        assert self.half != self.array.half, "two tiles in a row take the same half of the banks"
        tile = ctx.get(engine.write.p)
        self.loader.started()
        self.array.started(self.half, self.tile.members)
        fragments = []
        pins = self.pins
        pins.set(ctx, engine.write_fragment_context, tile.context)
        for i in range(tile.fragments):
            pins.set(ctx, engine.write_fragment_index, i)
            fragments.append(ctx.get(engine.write_fragment))
        got = [(f.slot, f.sub_tile, f.line, f.row, f.seg, f.lines) for f in fragments]
        assert got == tile_fragments(self.tile, self.descriptor)
        self.writer.started(tile, fragments, tile.context)

    def finish(self):
        """Nothing is left over."""
        model = self.model
        assert not model.live() and model.next is None and not model.started and model.dropped is None
        assert not self.writer.events and not self.must_fail
        # A descriptor may still come for a place that a sample was taken back from; it is nobody's read.
        assert not self.memories[1].outstanding
        self.merging = merging(self.layer_starts)
