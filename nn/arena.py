"""Places tensors in a sample's arena; memory of tensors that nobody reads any more is used again."""

from dataclasses import replace
from math import ceil

from .mapping import chunk_limit
from .program import TensorPlace

__all__ = ["lay_out", "place_tensors"]


def lay_out(rewritten, steps, config, reuse=True, packed=frozenset()):
    """Where every tensor lies while ``steps`` run; returns (dict name -> TensorPlace, arena bytes, producer).

    packed : names of tensors (packing.packed_tensors) whose pixels take a word each
    producer : dict name -> index of the operation that completes the tensor
    Tensors inside of others (Rewritten.inside) share their pixels' pitch. Outputs stay to the end.
    """
    network, shapes = rewritten.network, rewritten.network.tensors
    first_write, last_read, producer = {network.input.name: -1}, {network.input.name: -1}, {}
    for i, step in enumerate(steps):
        if step.layer is not None:
            name = step.output.name
            producer[name] = i
            while name in rewritten.inside:
                name = rewritten.inside[name][0]
                producer[name] = i
            first_write.setdefault(name, i)
            last_read[name] = i  # at least until it is written
            for tensor in step.inputs:
                last_read[rewritten.place_of(tensor.name)[0]] = i
    for name in rewritten.inside:
        if name not in producer:  # nobody writes it: a view of channels of a tensor that is there
            whole = rewritten.inside[name][0]
            while whole not in producer and whole in rewritten.inside:
                whole = rewritten.inside[whole][0]
            if whole in producer:
                producer[name] = producer[whole]
    written = {step.output.name for step in steps if step.layer is not None}
    for tensor in network.outputs:
        last_read[rewritten.place_of(tensor.name)[0]] = len(steps)

    # A beat that is not the whole pixel is written by itself only if a chunk is not the whole pixel either.
    pitch = {name: ceil(t.channels / config.bus_bytes) for name, t in shapes.items()}
    tail = dict.fromkeys(pitch, 0)  # bytes behind a tensor that are read with the last pixel of one that lies inside
    for name in rewritten.inside:
        root, channel = rewritten.place_of(name)
        if name in written:
            pitch[root] = max(pitch[root], chunk_limit(config) + 1)
        tail[root] = max(tail[root], channel)
    for image in (step.layer.input for step in steps if step.layer is not None):
        if image.shape != shapes[image.name].shape:  # the layer sees the bytes as an image of another shape
            beats = image.height * image.width * ceil(image.channels / config.bus_bytes)
            height, width, _ = shapes[image.name].shape
            tail[image.name] = max(0, beats - height * width * pitch[image.name]) * config.bus_bytes
    order = sorted(first_write, key=first_write.get)
    tensors = [(n, *shapes[n].shape, pitch[n]) for n in order]
    packing = dict.fromkeys(packed, config.words_per_beat)
    places, size = place_tensors(tensors, first_write, last_read, config.bus_bytes, reuse, tail, packing)
    for name in rewritten.inside:
        root, channel = rewritten.place_of(name)
        h, w, c = shapes[name].shape
        places[name] = replace(
            places[root], name=name, offset=places[root].offset + channel, height=h, width=w, channels=c
        )
    return places, size, producer


def place_tensors(tensors, first_write, last_read, bus_bytes, reuse=True, tail=None, packing=None):
    """Offsets for tensors; returns (dict name -> TensorPlace, arena bytes).

    A tensor lives from the operation that writes it to the last one that reads it. A tile has read all its inputs
    before its last values are drained, and tiles of a sample are drained in program order, so an operation may write
    where any earlier one has read; only its own inputs must stay.

    Parameters
    ----------
    tensors : list of (name, height, width, channels, pixel_beats), in order of their first write
    first_write, last_read : dicts name -> index of an operation (-1: before the program starts)
    tail : dict name -> bytes behind the tensor that may be read with it, whatever they hold
    packing : dict name -> pixels to a beat, where it is not 1
    reuse : False gives every tensor memory of its own, so that all can be looked at afterwards
    """
    places, top = {}, 0
    living = []  # (offset, end, last read)
    for name, height, width, channels, pixel_beats in tensors:
        packed = (packing or {}).get(name, 1)
        line_beats = ceil(width / packed) * pixel_beats
        size = height * line_beats * bus_bytes
        extra = (tail or {}).get(name, 0)
        start = first_write[name]
        busy = sorted((o, e) for o, e, last in living if not reuse or last >= start)
        offset = 0
        for low, high in busy:
            if offset + size <= low:
                break
            offset = max(offset, high)
        living.append((offset, offset + size, last_read[name]))
        top = max(top, offset + size + extra)
        places[name] = TensorPlace(name, offset, height, width, channels, pixel_beats, line_beats, packed)
    return places, max(top, bus_bytes)
