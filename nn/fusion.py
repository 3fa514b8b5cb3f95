"""Which additions are part of the convolution that makes one of their operands."""

from dataclasses import dataclass

from .graph import Add, Conv, Depthwise, Network, Pool, Tensor

__all__ = ["Addition", "fused_additions", "identity_of"]


@dataclass(frozen=True)
class Addition:
    """An Add as the operation that makes its left operand sees it.

    left, right : (multiplier, shift) of the operation's own value and of ``residual``, the tensor that is read
    """

    add: Add
    own: Tensor
    residual: Tensor
    left: tuple[int, int]
    right: tuple[int, int]

    @classmethod
    def of(cls, add, own):
        """``add`` behind the operation that makes ``own``, one of its operands."""
        if own.name == add.input.name:
            return cls(add, add.input, add.other, add.left, add.right)
        return cls(add, add.other, add.input, add.right, add.left)


def fused_additions(network: Network) -> dict[int, int]:
    """Index of an Add -> index of the convolution that it is fused into.

    The convolution's output must have no other reader and not be an output of the network. It then runs where the Add
    would, when the other operand is there for certain. If both operands qualify, the one with more MACs is taken: its
    longer tiles hide the reading of the other.
    """
    readers: dict[str, int] = {}
    for layer in network.layers:
        for tensor in layer.inputs:
            readers[tensor.name] = readers.get(tensor.name, 0) + 1
    kept = {tensor.name for tensor in network.outputs}
    fused = {}
    for i, add in enumerate(network.layers):
        if not isinstance(add, Add):
            continue
        makers = [network.producer(t.name) for t in add.inputs if readers[t.name] == 1 and t.name not in kept]
        convs = [p for p in makers if p is not None and isinstance(network.layers[p], (Conv, Depthwise))]
        if convs:
            fused[i] = max(convs, key=lambda p: (network.layers[p].macs, p))
    return fused


def identity_of(add: Add) -> Pool:
    """A layer that does nothing to the left operand of a stand-alone ``add``: the sum of one tap, divided by one."""
    return Pool(name=add.name, input=add.input, output=add.input, window=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0))
