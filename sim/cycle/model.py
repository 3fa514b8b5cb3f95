"""The cycle model as an object: registers as the host writes them, time, events, counters."""

import hashlib

import numpy as np
from fluidnpu.hw import isa

from .chains import new_chains
from .handed import places_of
from .machine import AT_CYCLE, AT_EXIT, AT_IRQ, FULL, run_flat
from .segments import new_memo
from .state import COMMANDS, COUNTERS, EVENT_FIELDS, State, new_descriptors, new_machine

__all__ = ["CycleModel", "NotModelled"]

MEMOS = 2  # kept for models to come
_MEMOS = {}
_NO_MEMO = new_memo(new_chains(1), 1, 1, 1)
EVENT = np.dtype([(name, "i8") for name in EVENT_FIELDS])


class NotModelled(RuntimeError):
    """The model met something that it does not cover, such as a faulty program."""


class CycleModel:
    """An NPU of ``config`` over ``memory`` (uint8 array, whole words), from reset on.

    Parameters
    ----------
    config : NpuConfig; settings : MemorySettings (in order, no jitter, no stalls, no errors; else NotModelled)
    memory : external memory, of which only descriptors are read here
    answer : function (slot, program, exit) -> (class, S) of an exit
    jumps : go through what has been seen before without steps (memo.py); the result is the same
    record : keep the events; without them a run of any length needs the same memory

    Cycles as in RtlBench: a register written in cycle c is seen from cycle c + 1 on.
    """

    def __init__(self, config, settings, memory, answer, jumps=True, record=True):
        odd = settings.read_jitter or settings.write_jitter or settings.stalls or settings.errors
        if odd or settings.order != "in_order":
            raise NotModelled(f"memory {settings}: jitter, stalls, errors and orders are not modelled")
        if config.command_entries > COMMANDS:
            raise NotModelled(f"{config.name}: command_entries = {config.command_entries} is more than {COMMANDS}")
        self.config, self.answer = config, answer
        self._words = memory.view("<u4")
        self._machine = new_machine(config, settings)
        self._desc = new_descriptors()
        self._flat = np.asarray(self._desc).view("i8").reshape(len(self._desc), -1)
        self._raw = np.asarray(self._machine).view("i8")
        self._trace = np.zeros((1 << 17, len(EVENT_FIELDS)), np.int64)
        self._settings, self._jumps = settings, jumps
        self._memory, self._programs = memory, {}
        self._memo = self._places = None  # what is known of the programs in memory
        self._events, self._count, self._record = [], 0, record
        self.state = State(self._machine)

    @property
    def cycle(self):
        """The present cycle."""
        return self.state.t

    def run(self, until, irq=False):
        """Go on to cycle ``until``, or to the first one in which a completion waits if ``irq``; True if so."""
        m = self.state
        if m.t >= until:
            return bool(irq and m.c_level)
        if self._memo is None:
            self._memo = self._known()
            self._places = places_of(self._memo)
        while True:
            reason = run_flat(self._raw, self._flat, self._words, self._places, self._trace, until, irq)
            if reason == AT_CYCLE:
                return bool(irq and m.c_level)
            if reason == AT_IRQ:
                return True
            if reason == FULL:
                self._keep()
            elif reason == AT_EXIT:
                m.x_top, m.x_spread = self.answer(int(m.x_slot), int(m.x_program), int(m.x_exit))
                m.x_answered = 1
            else:
                raise NotModelled(f"cycle {m.t}: the program has an error (trouble {m.trouble})")

    def _keep(self):
        n = int(self.state.n_events)
        if n and self._record:
            self._events.append(self._trace[:n].copy())
            self._count += n
        self.state.n_events = 0

    def new_events(self, first):
        """Events from number ``first`` on, in the order of cycles (numpy array of EVENT)."""
        self._keep()
        later, number = [], self._count
        for part in reversed(self._events):
            if number <= first:
                break
            number -= len(part)
            later.insert(0, part[max(0, first - number) :])
        if len(later) == 1:
            events = later[0]
        else:
            events = np.concatenate(later) if later else np.empty((0, len(EVENT_FIELDS)), np.int64)
        return events.view(EVENT).reshape(-1)

    def events(self):
        """All events so far, numpy array of EVENT, by cycle, the engine's before the array's."""
        events = self.new_events(0)
        return events[np.lexsort((events["source"], events["cycle"]))]

    def counters(self):
        """Name -> value, before this cycle."""
        return dict(zip(COUNTERS, self.state.counter.tolist(), strict=True))

    # --- the memo -------------------------------------------------------------------------------------------------

    def _forget(self):
        """Programs change: other descriptors are behind the same operations from now on."""
        m = self.state
        self._memo = None
        self._jumps &= not m.v_live  # samples of the old one may go on
        if not m.v_live:
            m.e_leader_pc = m.n_pc = -1

    def _known(self):
        """The memo for the configuration, memory and programs of this model; models share them."""
        if not self._jumps:
            return _NO_MEMO
        programs = []
        for index, (base, ops) in sorted(self._programs.items()):
            content = self._memory[base : base + ops * isa.DESCRIPTOR_BYTES].tobytes()
            programs.append((index, base, ops, hashlib.sha256(content).digest()))
        key = self.config, repr(self._settings), tuple(programs)
        if key not in _MEMOS:
            while len(_MEMOS) >= MEMOS:
                del _MEMOS[next(iter(_MEMOS))]
            _MEMOS[key] = new_memo(new_chains())
        _MEMOS[key] = _MEMOS.pop(key)  # the latest
        return _MEMOS[key]

    def memory_written(self, address, count):
        """The host writes ``count`` bytes to memory."""
        for base, ops in self._programs.values():
            if address < base + ops * isa.DESCRIPTOR_BYTES and base < address + count:
                self._forget()

    # --- registers, written in the cycle before the present one ---------------------------------------------------

    def write_program(self, index, name, value):
        """PROGRAM_BASE, _BYTES, _OPS."""
        m = self.state
        self._forget()
        if name == "BASE":
            m.program_base[index] = value // self.config.bus_bytes * self.config.bus_bytes
        elif name == "OPS":
            m.program_ops[index] = value
        self._programs[index] = int(m.program_base[index]), int(m.program_ops[index])
        m.k_forget |= 1 << index

    def write_control(self, value):
        """CONTROL: rigid, unstacked."""
        self.state.e_rigid, self.state.e_unstacked = value & 1, value >> 1 & 1

    def command_free(self):
        """Commands that would be taken now."""
        m = self.state
        return int(min(self.config.command_entries - m.m_count, m.c_unreserved))

    def queue_command(self, opcode, words):
        """A doorbell rang; the caller has looked at command_free."""
        m = self.state
        place = (m.m_head + m.m_count) % COMMANDS
        m.cmd_opcode[place] = opcode
        m.cmd_words[place] = words
        m.m_count += 1
        m.c_unreserved -= 1

    def completion(self):
        """Fields of the oldest completion, None if there is none."""
        m = self.state
        if not m.c_level:
            return None
        status, slot, exit, code, top, tag, spread, stamp, _ = m.completion[m.c_head].tolist()
        fields = {"status": status, "slot": slot, "exit": exit, "code": code, "top": top, "tag": tag, "spread": spread}
        return fields | {"stamp_low": stamp & 0xFFFFFFFF, "stamp_high": stamp >> 32}

    def pop(self):
        """The host pops the oldest completion."""
        m = self.state
        done = self.completion()
        if done["status"] in (isa.Status.OK, isa.Status.CANCELLED, isa.Status.FAILED):
            m.v_popped |= 1 << done["slot"]
        m.c_head = (m.c_head + 1) & 255
        m.c_level -= 1
        m.c_unreserved += 1
