"""Places tensors in a sample's arena; memory of tensors that nobody reads any more is used again."""

from .program import TensorPlace

__all__ = ["place_tensors"]


def place_tensors(tensors, first_write, last_read, bus_bytes, reuse=True):
    """Offsets for tensors; returns (dict name -> TensorPlace, arena bytes).

    A tensor lives from the operation that writes it to the last one that reads it. A tile reads all its inputs before
    it starts and tiles of a sample start in program order, so an operation may write where any earlier one has read;
    only its own inputs must stay.

    Parameters
    ----------
    tensors : list of (name, height, width, channels, pixel_beats), in order of their first write
    first_write, last_read : dicts name -> index of an operation (-1: before the program starts)
    reuse : False gives every tensor memory of its own, so that all can be looked at afterwards
    """
    places, top = {}, 0
    living = []  # (offset, end, last read)
    for name, height, width, channels, pixel_beats in tensors:
        line_beats = width * pixel_beats
        size = height * line_beats * bus_bytes
        start = first_write[name]
        busy = sorted((o, e) for o, e, last in living if not reuse or last >= start)
        offset = 0
        for low, high in busy:
            if offset + size <= low:
                break
            offset = max(offset, high)
        living.append((offset, offset + size, last_read[name]))
        top = max(top, offset + size)
        places[name] = TensorPlace(name, offset, height, width, channels, pixel_beats, line_beats)
    return places, max(top, bus_bytes)
