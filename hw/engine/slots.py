"""The slot table: the state of every live sample, and what can be read off it in the same cycle."""

from amaranth.hdl import Array, Cat, Mux, Signal
from amaranth.utils import ceil_log2

from .. import isa
from ..tile import DIMENSION_BITS

__all__ = ["SlotTable"]


class SlotTable:
    """Registers of ``slots`` slots and the predicates of docs/architecture.md over them.

    One bit per slot (vectors): live, posted (released, completion not popped), runnable, ride, leave, cancelled,
    failed, finished, decided (rigid mode: the decision is recorded), known (the descriptor at pc is in the cache),
    in_next (member of the dealt tile), pending (a BATCH entry waits for its commit).
    One value per slot (arrays): priority, pc and line (dealt so far; row and seg belong to line), done_pc and done_line
    (in memory), op and entry (of the descriptor at pc), arena_base, arena_bytes, exits, code, tiles (started and not
    completely written), fault_code.
    """

    def __init__(self, config):
        self.config = config
        n = config.slots

        def vector(name):
            return Signal(n, name=name)

        def array(name, width):
            return Array(Signal(width, name=f"{name}_{s}") for s in range(n))

        for name in (
            "live posted runnable ride leave cancelled failed finished decided known in_next "
            "pending pending_runnable pending_ride fault group"
        ).split():
            setattr(self, name, vector(name))
        for name, width in (
            ("priority", 8),
            ("pending_priority", 8),
            ("pc", 16),
            ("line", 16),
            ("row", DIMENSION_BITS),
            ("seg", 8),
            ("done_pc", 16),
            ("done_line", 16),
            ("op", 4),
            ("entry", ceil_log2(n + 1)),
            ("arena_base", 32),
            ("arena_bytes", 32),
            ("exits", 16),
            ("code", 4),
            ("fault_code", 4),
            ("tiles", 2),
        ):
            setattr(self, name, array(name, width))
        self.order = Array(Signal(ceil_log2(n), name=f"order_{i}") for i in range(n))  # oldest first
        self.count = Signal(range(n + 1))

        self.ending = vector("ending")
        self.eligible = vector("eligible")
        self.dealable = vector("dealable")
        self.writing = vector("writing")
        self.at_jump = vector("at_jump")
        self.at_exit = vector("at_exit")
        self.wanted = vector("wanted")
        self.cancelled_live = vector("cancelled_live")

    def at_op(self, *ops):
        """Slots whose known descriptor is one of ``ops``."""
        values = (Cat(op == code for op in self.op) for code in ops)
        result = next(values)
        for value in values:
            result = result | value
        return result & self.known

    def elaborate(self, m, rigid):
        """Add the predicates to module ``m``."""
        group_lives = (self.group & self.live).any()
        mine = Mux(rigid & group_lives, self.group, (1 << self.config.slots) - 1)
        m.d.comb += [
            self.ending.eq(self.cancelled | self.failed | self.finished),
            self.eligible.eq(self.live & self.runnable & ~self.ending & mine),
            self.dealable.eq(self.eligible & self.at_op(*isa.LAYERS)),
            self.writing.eq(Cat(t.any() for t in self.tiles)),
            self.at_jump.eq(self.eligible & self.at_op(isa.Op.JUMP) & ~self.in_next),
            self.at_exit.eq(self.live & ~self.ending & self.at_op(isa.Op.EXIT) & ~self.in_next & ~self.writing),
            self.wanted.eq(self.live & ~self.ending & ~self.known),
            self.cancelled_live.eq(self.live & self.cancelled),
        ]

    def move(self, slot, pc):
        """Statements: ``slot`` stands at the beginning of operation ``pc``."""
        return [
            self.pc[slot].eq(pc),
            self.line[slot].eq(0),
            self.row[slot].eq(0),
            self.seg[slot].eq(0),
            self.known.bit_select(slot, 1).eq(0),
        ]

    def append(self, m, slot):
        """Make ``slot`` the youngest."""
        m.d.sync += [self.order[self.count].eq(slot), self.count.eq(self.count + 1)]

    def remove(self, m, slot):
        """Close the gap that ``slot`` leaves in the order of ages."""
        behind = []
        for i in range(self.config.slots - 1):
            behind.append(self.order[i] == slot)
            with m.If(Cat(behind).any()):
                m.d.sync += self.order[i].eq(self.order[i + 1])
        m.d.sync += self.count.eq(self.count - 1)

    def clear(self, m):
        """Forget everything (soft reset)."""
        m.d.sync += [
            signal.eq(0)
            for signal in (
                *(self.live, self.posted, self.leave, self.cancelled, self.failed, self.finished, self.decided),
                *(self.known, self.in_next, self.pending, self.fault, self.group, self.count, *self.tiles),
            )
        ]

    def state_word(self, slot):
        """SLOT_STATE: state is 0 free, 1 live, 2 posted."""
        bit = lambda v: v.bit_select(slot, 1)  # noqa: E731
        return Cat(
            *(bit(self.live), bit(self.posted), 0, bit(self.runnable), bit(self.ride), bit(self.leave)),
            *(bit(self.failed), bit(self.cancelled), self.priority[slot], self.pc[slot]),
        )
