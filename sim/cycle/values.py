"""What the cycle model does not compute: tensors and decisions, from the integer reference."""

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import EngineEvent, Opcode
from fluidnpu.nn import reference
from fluidnpu.nn.exits import exit_table, top_and_spread

__all__ = ["NoValues", "ReferenceValues", "unfold_input"]

_INDEX_MASK = (1 << isa.PC_INDEX_BITS) - 1
_LEAST_CONFIDENT = (0, 0xFFFFFFFF)


def unfold_input(program, content):
    """The image int8 [h, w, c] that Program.pack_input turns into the bytes ``content`` (pixels that no window
    reaches: the fold's zero)."""
    f = program.input
    place = program.tensors[program.input_tensor]
    arena = np.zeros(place.offset + len(content), np.uint8)
    arena[place.offset :] = content
    taps = program.unpack(program.input_tensor, arena)
    image = np.full((f.height, f.width, f.channels), f.zero, np.int8)
    for ky in range(f.fold_h):
        for kx in range(f.fold_w):
            first = (ky * f.fold_w + kx) * f.channels
            rows = np.arange(place.height) * f.sy + ky - f.top
            columns = np.arange(place.width) * f.sx + kx - f.left
            inside_y, inside_x = (rows >= 0) & (rows < f.height), (columns >= 0) & (columns < f.width)
            part = taps[inside_y][:, inside_x, first : first + f.channels]
            image[np.ix_(rows[inside_y], columns[inside_x])] = part
    return image


class NoValues:
    """Timing alone: memory keeps what the host wrote, no exit but the last is ever confident."""

    def connect(self, memory):
        """Before the first event."""

    def follow(self, model, events):
        """Events of the engine, in order, each once."""

    def answer(self, model, slot, program, exit):
        """(class, S) of an exit."""
        return _LEAST_CONFIDENT


class ReferenceValues(NoValues):
    """Tensors of samples by nn.reference, written to memory when their last line is.

    Parameters: networks: pairs (Program, Network); a program region is recognised by its bytes. KeyError for others.
    """

    def __init__(self, networks):
        self._networks = list(networks)
        self._known = {}  # (number of the network, bytes of the input) -> tensors
        self._loaded = {}  # program index -> (base, number of the network)
        self._samples = {}  # slot -> (Program, Network, arena base, tensors)

    def connect(self, memory):
        self._memory = memory

    def _network(self, model, index):
        base = int(model.state.program_base[index])
        if self._loaded.get(index, (None,))[0] != base:
            for number, (program, _) in enumerate(self._networks):
                region = np.frombuffer(program.region, np.uint8)
                if np.array_equal(self._memory[base : base + len(region)], region):
                    self._loaded[index] = base, number
                    break
            else:
                raise KeyError(f"program {index} at {base:#x} is none of those whose values are known")
        return self._loaded[index][1]

    def _admit(self, model, slot, pc):
        number = self._network(model, pc >> isa.PC_INDEX_BITS)
        program, network = self._networks[number]
        place = program.tensors[program.input_tensor]
        base = int(model.state.arena_base[slot])
        size = place.height * place.line_beats * program.bus_bytes
        content = self._memory[base + place.offset : base + place.offset + size].copy()
        key = number, content.tobytes()
        if key not in self._known:
            self._known[key] = reference.run(network, unfold_input(program, content))
        self._samples[slot] = program, network, base, self._known[key]

    def _write(self, slot, name):
        program, _, base, tensors = self._samples[slot]
        if name in tensors and name in program.tensors:
            place = program.tensors[name]
            content = program.pack(name, tensors[name])
            self._memory[base + place.offset : base + place.offset + len(content)] = content

    def follow(self, model, events):
        for event in events[events["source"] == 0]:
            kind, slot = event["kind"], int(event["slot"])
            if kind == EngineEvent.COMMAND and event["data"] == Opcode.ADMIT and not event["line"]:
                self._admit(model, slot, int(event["data2"]) >> 16)
            elif kind == EngineEvent.DONE and not event["line"]:
                done = (int(event["pc"]) & _INDEX_MASK) - 1
                self._write(slot, self._samples[slot][0].ops[done].tensor)

    def answer(self, model, slot, program, exit):
        _, network, _, tensors = self._samples[slot]
        e = network.exits[exit]
        top, spread = top_and_spread(tensors[e.logits.name][0, 0], exit_table(e.scale, e.beta))
        return int(top), int(spread)
