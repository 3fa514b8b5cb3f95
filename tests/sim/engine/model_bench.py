"""The engine model with short hands, and small programs for it."""

from dataclasses import replace

from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import NO_PRODUCER, Opcode
from fluidnpu.sim.engine_layers import (
    Exit,
    Jump,
    Layer,
    Variant,
)
from fluidnpu.sim.engine_model import EngineModel

__all__ = ["PLAIN", "Bench", "chain", "early_exit", "layer", "spans"]

PLAIN = Variant(max_lines=4, stripe_lines=8)


def layer(lines=8, producer=NO_PRODUCER, kh=1, variants=(PLAIN,), vsel=(0,), **geometry):
    """A layer whose input has as many rows as its output has lines, unless told otherwise."""
    return Layer(lines, geometry.pop("in_h", lines), kh, producer=producer, variants=variants, vsel=vsel, **geometry)


def chain(layers=3, lines=8):
    """Layers one after the other, each reading the one before, and the last exit."""
    return [layer(lines, NO_PRODUCER if i == 0 else i - 1) for i in range(layers)] + [Exit(0, last=True)]


def early_exit():
    """layer 0, jump 1, head 2, exit 0 at 3, layer 4, last exit 1 at 5."""
    return [layer(4), Jump(0, 4), layer(1, 0, in_h=4, kh=4), Exit(0), layer(4, 0), Exit(1, last=True)]


class Bench:
    """A model with short hands: admit, tile, and run with everything in memory at once."""

    def __init__(self, ops, slots=4, max_stack=4, trackers=3, **modes):
        config = replace(get_config("tiny"), slots=slots, max_stack=max_stack, trackers=trackers)
        self.model = EngineModel(config, {0: ops}, **modes)
        self.started = []

    def admit(self, slot, **fields):
        values = {"slot": slot, "tag": 100 + slot, "arena_bytes": 4096, "priority": 1, "runnable": 1, "ride": 1}
        assert self.model.execute_command(Opcode.ADMIT, **{**values, "exits": 0xFFFF, **fields}) is None

    def batch(self, *slots, commit=1, priority=1, runnable=1, ride=1):
        mask = sum(1 << s for s in slots)
        self.model.execute_command(
            Opcode.BATCH, slot_mask=mask, priority=priority, runnable=runnable, ride=ride, commit=commit
        )

    def mark(self, opcode, *slots):
        self.model.execute_command(opcode, slot_mask=sum(1 << s for s in slots))

    def finish(self, tile):
        for s in tile.members:
            self.model.write_done(s)
        self.model.tile_drained(tile.number)

    def tile(self):
        """Deal, start and write one tile."""
        tile = self.model.deal()
        self.model.start()
        self.started.append(tile)
        self.finish(tile)
        return tile

    def run(self, results=None, most_tiles=1000):
        """Do everything possible; ``results``: (slot, exit) -> S. Returns completions by slot."""
        completions = {}
        while actions := self.model.enabled_actions():
            name, *rest = actions[0]
            if name == "deal":
                if len(self.started) >= most_tiles:
                    break
                self.tile()
            elif name == "exit_start":
                self.model.exit_start(*rest)
                key = rest[0], self.model.op(rest[0]).exit
                self.model.exit_result(rest[0], 7, (results or {}).get(key, 0xFFFF0000), len(self.started))
            elif name == "release":
                completions[rest[0]] = self.model.release(*rest)
            else:
                getattr(self.model, name)(*rest)
                if name == "revoke":
                    self.model.drained()
        return completions


def spans(tile):
    """The tile as lists of (slot, first line, lines)."""
    return [[(f.slot, f.first, f.lines) for f in subtile] for subtile in tile.subtiles]
