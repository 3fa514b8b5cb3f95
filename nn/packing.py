"""Which tensors are packed: several pixels to a beat of the bus, where one word holds all channels.

Only convolutions read and write packed pixels, whole rows of them (docs/architecture.md, "Packed pixels").
"""

from fluidnpu.hw.isa import Op

from .lowering import geometry_of
from .mapping import MappingError

__all__ = ["packed_tensors"]


def _fits_word(tensor, config):
    """Whether a tensor's pixels leave room for others in their beats."""
    return config.words_per_beat > 1 and tensor.channels <= config.lanes


def packed_tensors(rewritten, steps, config):
    """Names of the tensors whose pixels take a word each.

    A second operand is packed if and only if the sum is. What lies inside of another tensor, is read by an exit or
    leaves the network keeps whole beats.
    """
    if config.words_per_beat == 1:
        return frozenset()
    network = rewritten.network
    layers = [step for step in steps if step.layer is not None]
    whole = {exit.logits.name for exit in network.ends} | {tensor.name for tensor in network.outputs}
    for name, (outer, _) in rewritten.inside.items():
        whole |= {name, outer}
    made = {step.output.name for step in layers} | {network.input.name}
    tensors = network.tensors
    packed = {name for name in made - whole if _fits_word(tensors[name], config)}

    def as_rows(step):
        """A convolution of whole rows that sees its input as it is."""
        if step.op != Op.CONV or step.layer.input.shape != tensors[step.layer.input.name].shape:
            return False
        try:
            return geometry_of(step.layer, config, step.addition).segments(config)[0] == 1
        except MappingError:  # the layer fits in no way: whoever maps it says so
            return False

    rows = [as_rows(step) for step in layers]
    while True:
        kept = set(packed)
        for step, good in zip(layers, rows, strict=True):
            if not good:
                kept -= {tensor.name for tensor in (*step.inputs, step.output)}
            elif step.output.width % config.words_per_beat:
                kept.discard(step.output.name)
            if step.addition and not {step.addition.residual.name, step.output.name} <= kept:
                kept -= {step.addition.residual.name, step.output.name}
        if kept == packed:
            return frozenset(packed)
        packed = kept
