"""Published networks as .tflite files with random weights: true shapes, strides and paddings, for measuring speed.

Sources: ResNet (He et al. 2015, arXiv 1512.03385, table 1), in v1 the stride of a bottleneck is in its first 1x1
convolution, in v1.5 (torchvision, MLPerf) in the 3x3; MobileNetV1 (Howard et al. 2017, arXiv 1704.04861, table 1);
DS-CNN (Zhang et al. 2017, arXiv 1711.07128) as in MLPerf Tiny. Batch norm is folded.
"""

from collections.abc import Callable, Sequence

import numpy as np

from .random_network import Activation, RandomNetwork

__all__ = ["NETWORKS", "make_network"]


def make_network(name: str, *, exits: Sequence[int] = (), seed: int = 0) -> bytes:
    """Bytes of the .tflite file of one of NETWORKS.

    exits : numbers of stages, from 1, behind which an exit is attached (MEAN and FULLY_CONNECTED); the network's own
    output is the last one. Raises ValueError for an unknown name or stage.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    net = RandomNetwork(f"{name}, random weights", np.random.default_rng(seed))
    heads = sorted(set(exits))
    stages = 0

    def stage(x: Activation, classes: int) -> Activation:
        nonlocal stages
        stages += 1
        if stages in heads:
            net.classify(x, classes, f"exit{heads.index(stages) + 1}")
        return x

    x, classes = NETWORKS[name](net, stage)
    if heads and not 1 <= heads[0] <= heads[-1] <= stages:
        wanted = ", ".join(map(str, heads))
        raise ValueError(
            f"{name}: exits after stages {wanted}; it has {f'stages 1..{stages}' if stages else 'no stages'}"
        )
    net.classify(x, classes, f"exit{len(heads) + 1}")
    return net.to_bytes()


_Stage = Callable[[Activation, int], Activation]
_IMAGENET = 1000  # classes


def _resnet(net: RandomNetwork, stage: _Stage, blocks: Sequence[int], block: Callable) -> tuple[Activation, int]:
    """7x7 convolution, 3x3 max pool, four stages of residual blocks; stages 1 to 3 can have an exit."""
    x = net.conv(net.input(224, 224, 3), 64, 7, 2, border=3, name="conv1")
    x = net.max_pool(x, 3, 2, border=1)
    for s, count in enumerate(blocks):
        for b in range(count):
            x = block(net, x, 64 << s, 2 if s and not b else 1, f"stage{s + 1}/block{b + 1}")
        if s < len(blocks) - 1:
            x = stage(x, _IMAGENET)
    return x, _IMAGENET


def _bottleneck(net, x, width, stride, name, stride_in_3x3=False):
    """1x1, 3x3, 1x1 with four times the channels, plus what came in."""
    first, second = (1, stride) if stride_in_3x3 else (stride, 1)
    y = net.conv(x, width, 1, first, name=f"{name}/a")
    y = net.conv(y, width, 3, second, border=1 if second > 1 else None, name=f"{name}/b")
    y = net.conv(y, 4 * width, 1, activation="NONE", name=f"{name}/c")
    if x.channels != 4 * width:
        x = net.conv(x, 4 * width, 1, stride, activation="NONE", name=f"{name}/shortcut")
    return net.add(x, y, name=f"{name}/sum")


def _bottleneck_v15(net, x, width, stride, name):
    return _bottleneck(net, x, width, stride, name, stride_in_3x3=True)


def _basic_block(net, x, width, stride, name):
    """Two 3x3 convolutions, plus what came in."""
    y = net.conv(x, width, 3, stride, border=1 if stride > 1 else None, name=f"{name}/a")
    y = net.conv(y, width, 3, activation="NONE", name=f"{name}/b")
    if x.channels != width:
        x = net.conv(x, width, 1, stride, activation="NONE", name=f"{name}/shortcut")
    return net.add(x, y, name=f"{name}/sum")


def _resnet50(net, stage):
    return _resnet(net, stage, (3, 4, 6, 3), _bottleneck)


def _resnet50_v15(net, stage):
    return _resnet(net, stage, (3, 4, 6, 3), _bottleneck_v15)


def _resnet18(net, stage):
    return _resnet(net, stage, (2, 2, 2, 2), _basic_block)


def _mobilenet_v1(net: RandomNetwork, stage: _Stage) -> tuple[Activation, int]:
    """3x3 convolution, 13 pairs of depthwise and 1x1 convolutions; stages end where the next pair has stride 2."""
    x = net.conv(net.input(224, 224, 3), 32, 3, 2, "RELU6", name="conv1")
    pairs = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    for number, (channels, stride) in enumerate(pairs, start=1):
        if stride == 2:
            x = stage(x, _IMAGENET)
        x = net.depthwise(x, 3, stride, "RELU6", name=f"pair{number}/depthwise")
        x = net.conv(x, channels, 1, 1, "RELU6", name=f"pair{number}/pointwise")
    return x, _IMAGENET


def _ds_cnn(net: RandomNetwork, stage: _Stage) -> tuple[Activation, int]:
    """Keyword spotting on 49 x 10 coefficients, 12 words; every pair of convolutions is a stage."""
    x = net.conv(net.input(49, 10, 1), 64, (10, 4), 2, name="conv1")
    for number in range(1, 5):
        x = net.depthwise(x, 3, name=f"pair{number}/depthwise")
        x = net.conv(x, 64, name=f"pair{number}/pointwise")
        if number < 4:
            x = stage(x, 12)
    return x, 12


def _fully_connected(net: RandomNetwork, stage: _Stage) -> tuple[Activation, int]:
    """2048 numbers to 1000 classes, the last layer of ResNet-50 alone."""
    return net.input(2048), _IMAGENET


NETWORKS: dict[str, Callable[[RandomNetwork, _Stage], tuple[Activation, int]]] = {
    "resnet50": _resnet50,
    "resnet50-v1.5": _resnet50_v15,
    "resnet18": _resnet18,
    "mobilenet-v1": _mobilenet_v1,
    "ds-cnn": _ds_cnn,
    "fc-2048-1000": _fully_connected,
}
