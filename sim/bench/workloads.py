"""The workloads that the machine's speed is judged by: networks, configurations, targets, what is known elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass

from fluidnpu.hw.config import get_config

from ..memory import MemorySettings, limited

__all__ = ["MAC_USE", "WORKLOADS", "Goal", "Workload", "fully_connected_bound"]

UNPADDED_PARAMETER_BYTES = 9  # of a channel: bias and multiplier int32, shift int8
SLOW = MemorySettings(read_latency=100)


@dataclass(frozen=True)
class Goal:
    """A figure and what it should be.

    figure : what is measured; value : function of the dict run name -> Measurement, or None
    target, stretch : bounds (stretch None: there is none); ``at_least``: of a figure that should be large
    share : the figure is a share (shown in percent), else a factor; bus : it is the bus that bounds it
    """

    figure: str
    value: Callable
    target: float
    stretch: float | None = None
    at_least: bool = True
    share: bool = True
    bus: bool = False

    def text(self, value):
        """A value of the figure for readers."""
        return f"{100 * value:.1f} %" if self.share else f"{value:.2f}x"

    def verdict(self, value):
        """ "hit", "hit, stretch too", or "miss"."""
        reached = [bound is not None and (value >= bound) == self.at_least for bound in (self.target, self.stretch)]
        if value == self.target or reached[0]:
            return "hit, stretch too" if self.stretch is not None and reached[1] else "hit"
        return "miss"


@dataclass(frozen=True)
class Workload:
    """A network on a configuration.

    key : short name; elsewhere : what is known of other machines
    network : name in nn.zoo, or of a .tflite file under FLUIDNPU_REAL; stand_in : name in nn.zoo of the same shapes
    runs : dict run name -> arguments of measure.measure (live, memory, unstacked); goals : list of Goal
    shown : names of the runs that pictures and explanations are made of
    """

    key: str
    title: str
    network: str
    config: str
    runs: dict
    goals: tuple
    elsewhere: str = ""
    shown: tuple = ("ideal", "limited")
    stand_in: str = ""


def _utilisation(name="ideal"):
    return lambda runs: runs[name].utilisation


def _gain(runs):
    return runs["unstacked"].cycles / runs["ideal"].cycles


def _cost(runs):
    return runs["slow"].cycles / runs["ideal"].cycles - 1


def fully_connected_bound(config, inputs, outputs):
    """Cycles that the unpadded weights and parameters of a fully connected layer take on the bus."""
    return outputs * (inputs + UNPADDED_PARAMETER_BYTES) / config.bus_bytes


def _above_bound(runs):
    bound = fully_connected_bound(get_config("hub"), 2048, 1000)
    return max(m.cycles for name, m in runs.items() if name.startswith("live")) / bound - 1


def _both(live, **more):
    return {"ideal": {"live": live}, "limited": {"live": live, "memory": limited()}, **more}


MAC_USE = "MAC utilisation"
_RESNET8, _KWS = "models/resnet8_int8.tflite", "models/kws_dscnn_int8.tflite"
WORKLOADS = (
    Workload("resnet8-edge-1", "ResNet-8, 1 live", _RESNET8, "edge", _both(1),
             (Goal(MAC_USE, _utilisation(), 0.86, 0.89),),
             "82.8 %: output-stationary 16x16 with exposed fill and drain"),
    Workload("resnet8-edge-4", "ResNet-8, 4 live", _RESNET8, "edge", _both(4),
             (Goal(MAC_USE, _utilisation(), 0.92, 0.94),),
             "82.8 %: output-stationary 16x16 with exposed fill and drain"),
    Workload("resnet8-hub-4", "ResNet-8, 4 live", _RESNET8, "hub", _both(4, unstacked={"live": 4, "unstacked": True}),
             (Goal(MAC_USE, _utilisation(), 0.75, 0.80),
              Goal("gain by stacking", _gain, 3.5, share=False)), "about 19 % unstacked"),
    Workload("resnet50-gemmini16", "ResNet-50 224x224, 1 live", "resnet50", "gemmini16",
             _both(1, slow={"live": 1, "memory": SLOW}),
             (Goal(MAC_USE, _utilisation(), 0.92, 0.95),
              Goal("cost of latency 100", _cost, 0.02, at_least=False)),
             "Gemmini: 51 % at batch 4 on 16x16; tile-level model 97.8 %"),
    Workload("dscnn-gemmini16-4", "DS-CNN, 4 live", _KWS, "gemmini16", _both(4),
             (Goal(MAC_USE, _utilisation(), 0.60, 0.70),),
             "Ethos-U55-128: about 43 % on MobileNetV2; tile-level model 73.9 %", stand_in="ds-cnn"),
    Workload("mobilenet-gemmini16", "MobileNetV1 224x224, 1 live", "mobilenet-v1", "gemmini16", _both(1),
             (Goal(MAC_USE, _utilisation(), 0.75, 0.80),),
             "43.8 %: weight-stationary bound; a DPU 2.1 % on EfficientNet-B0; tile-level model 83 %"),
    Workload("fc-hub", "fully connected 2048 to 1000, 1 to 16 live", "fc-2048-1000", "hub",
             {f"live {n}": {"live": n} for n in range(1, 17)} | {"limited": {"live": 16, "memory": limited()}},
             (Goal("above the bus bound", _above_bound, 0.04, at_least=False, bus=True),),
             shown=("live 16", "limited")),
)  # fmt: skip
