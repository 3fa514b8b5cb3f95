"""What a block that reads external memory shows to the read arbiter."""

from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, Signature

from ..tile import Layouts

__all__ = ["ReadClientSignature"]


class ReadClientSignature(Signature):
    """Seen from the client; the arbiter takes it flipped (``In``).

    request : stream of Layouts.read_burst. One legal AXI burst: at most ``burst_beats`` beats, no 4 KB boundary
        inside, a beat-aligned address. The client has reserved space for all its beats.
    rejected : valid in the cycle in which a request is transferred: the burst lies outside of its region, does not
        reach the bus and gives no beats.
    beat_valid, beat, beat_last : a Layouts.read_beat and whether it ends its burst. Beats come in the order of the
        requests and cannot be stalled.
    """

    def __init__(self, config):
        self.config = config
        layouts = Layouts(config)
        super().__init__(
            {
                "request": Out(stream.Signature(layouts.read_burst)),
                "rejected": In(1),
                "beat_valid": In(1),
                "beat": In(layouts.read_beat),
                "beat_last": In(1),
            }
        )

    def __eq__(self, other):
        return isinstance(other, ReadClientSignature) and self.config == other.config
