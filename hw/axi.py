"""Bus signatures. Seen from the manager; a subordinate takes them flipped (``In``)."""

from amaranth.lib.wiring import In, Out, Signature

__all__ = ["OKAY", "SLVERR", "Axi4Signature", "AxiLiteSignature"]

OKAY = 0
SLVERR = 2


def _channel(prefix, out, **members):
    """valid/ready and the members of one channel; ``out``: driven by the manager."""
    flow = Out if out else In
    back = In if out else Out
    return {
        f"{prefix}valid": flow(1),
        f"{prefix}ready": back(1),
        **{f"{prefix}{name}": flow(width) for name, width in members.items()},
    }


class AxiLiteSignature(Signature):
    """AXI4-Lite, 32-bit data, without the protection signals."""

    def __init__(self, addr_width):
        self.addr_width = addr_width
        super().__init__(
            _channel("aw", True, addr=addr_width)
            | _channel("w", True, data=32, strb=4)
            | _channel("b", False, resp=2)
            | _channel("ar", True, addr=addr_width)
            | _channel("r", False, data=32, resp=2)
        )


class Axi4Signature(Signature):
    """AXI4, 32-bit addresses; only what the NPU uses (incrementing bursts, no cache or protection hints)."""

    def __init__(self, data_bytes, id_width=3):
        self.data_bytes = data_bytes
        self.id_width = id_width
        address = {"id": id_width, "addr": 32, "len": 8, "size": 3, "burst": 2}
        super().__init__(
            _channel("aw", True, **address)
            | _channel("w", True, data=8 * data_bytes, strb=data_bytes, last=1)
            | _channel("b", False, id=id_width, resp=2)
            | _channel("ar", True, **address)
            | _channel("r", False, id=id_width, data=8 * data_bytes, resp=2, last=1)
        )
