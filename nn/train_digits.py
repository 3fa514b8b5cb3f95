"""The project's own early-exit network: train it on digit views, quantise it to int8, write models/, evaluate.

    python -m fluidnpu.nn.train_digits               # trains, rewrites models/digits.tflite and digits_views.npz
    python -m fluidnpu.nn.train_digits --evaluate    # measures the shipped network on the shipped held-out views

Training needs the extra `train` (torch, scikit-learn); --evaluate needs neither. Quantisation is post-training, as the
TensorFlow Lite int8 specification has it: batch norm folded, convolution weights per channel, fully connected weights
per tensor, activation ranges from views of training digits. Evaluation runs the reference kernels of ai-edge-litert and
applies the exit rule to the int8 logits in front of each SOFTMAX.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from fluidnpu.nn.digits_data import Views, held_out_views, load_digit_images, make_views, split_digits
from fluidnpu.nn.intervals import wilson_interval
from fluidnpu.nn.tflite_writer import TfliteWriter, quantise_weights

__all__ = [
    "STAGES",
    "THRESHOLD",
    "Evaluation",
    "Stage",
    "evaluate",
    "exit_logits",
    "macs_to_exit",
    "report",
    "train",
]

MODELS = Path(__file__).resolve().parents[1] / "models"
THRESHOLD = 0.8  # a view leaves at the first exit whose top-1 softmax probability is at least this
CLASSES = 10
INPUT_PIXELS = 32

SEED = 1  # of the initial weights, the views and their order
EPOCHS = 60  # each shows every training digit once, in a new view
BATCH = 128
PEAK_LEARNING_RATE = 4e-3  # of the one-cycle schedule
WEIGHT_DECAY = 1e-3
CALIBRATION_VIEWS = 2  # per training digit, to measure activation ranges


@dataclass(frozen=True)
class Stage:
    """A piece of the trunk and the exit head behind it.

    convolutions: (channels, stride) of 3x3 SAME convolutions with RELU. pool: window and stride of the head's
    AVERAGE_POOL_2D, or None for MEAN over the image. The head ends with FULLY_CONNECTED and SOFTMAX.
    """

    convolutions: tuple[tuple[int, int], ...]
    pool: int | None


STAGES = (
    Stage(convolutions=((16, 2), (16, 1)), pool=4),
    Stage(convolutions=((32, 2), (32, 1)), pool=4),
    Stage(convolutions=((64, 2), (64, 1)), pool=None),
)


def _plan():
    """Per stage: [(in_channels, channels, stride)], head features, output pixels of the stage's image side."""
    channels, pixels = 1, INPUT_PIXELS
    for stage in STAGES:
        convolutions = []
        for width, stride in stage.convolutions:
            convolutions.append((channels, width, stride))
            channels, pixels = width, -(-pixels // stride)
        pooled = pixels // stage.pool if stage.pool else 1
        yield convolutions, pooled * pooled * channels, pixels


def macs_to_exit() -> list[int]:
    """Useful MACs of a view that leaves at each exit: the trunk up to there and the heads on the way."""
    total, result, pixels = 0, [], INPUT_PIXELS
    for convolutions, features, _ in _plan():
        for in_channels, channels, stride in convolutions:
            pixels = -(-pixels // stride)
            total += pixels * pixels * channels * 9 * in_channels
        total += features * CLASSES
        result.append(total)
    return result


# ---- training, in float


def _build(torch):
    """The network as torch modules: .trunk[stage][i] = (convolution, batch norm), .heads[stage]."""
    nn = torch.nn
    network = nn.Module()
    network.trunk, network.heads = nn.ModuleList(), nn.ModuleList()
    for convolutions, features, _ in _plan():
        pairs = [(nn.Conv2d(i, o, 3, s, bias=False), nn.BatchNorm2d(o)) for i, o, s in convolutions]
        network.trunk.append(nn.ModuleList(nn.ModuleList(pair) for pair in pairs))
        network.heads.append(nn.Linear(features, CLASSES))
    return network


def _forward(torch, network, x) -> tuple[list, list]:
    """x [N, 1, 32, 32]: (the output of every convolution, the logits of every exit)."""
    functional = torch.nn.functional
    activations, logits = [], []
    for stage, convolutions, head in zip(STAGES, network.trunk, network.heads, strict=True):
        for convolution, norm in convolutions:
            # TensorFlow's SAME padding of an even image: stride 2 pads below and on the right only.
            before = 2 - convolution.stride[0]
            padded = functional.pad(x, (before, 1, before, 1))
            x = functional.relu(norm(convolution(padded)))
            activations.append(x)
        pooled = functional.avg_pool2d(x, stage.pool or x.shape[-1])
        logits.append(head(pooled.permute(0, 2, 3, 1).flatten(1)))  # NHWC, as the .tflite flattens it
    return activations, logits


def _torch_input(torch, views: np.ndarray):
    return torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255


def train(images: np.ndarray, labels: np.ndarray, *, epochs: int = EPOCHS, seed: int = SEED) -> bytes:
    """Train on digits (float [N, 8, 8] in 0..1, labels [N]) and return the int8 .tflite file with three outputs.

    The sum of the exits' cross entropies is the loss. Reproducible on one machine; torch does not promise the same
    bits on another one. Raises ImportError without torch.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("training needs torch: pip install 'fluidnpu[train]'") from error
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # the order of sums, and so the result, must not depend on the number of cores
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(seed)
    network = _build(torch)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    batches = max(1, len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=epochs * batches)
    for epoch in range(epochs):
        order = rng.permutation(len(images))
        x = _torch_input(torch, make_views(images[order], rng))
        y = torch.from_numpy(labels[order].astype(np.int64))
        total = 0.0
        for first in range(0, batches * BATCH, BATCH):
            _, logits = _forward(torch, network, x[first : first + BATCH])
            target = y[first : first + BATCH]
            loss = sum(torch.nn.functional.cross_entropy(exit_, target) for exit_ in logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}/{epochs}: loss {total / batches:.3f}", flush=True)

    network.eval()
    with torch.no_grad():
        calibration = make_views(np.tile(images, (CALIBRATION_VIEWS, 1, 1)), rng)
        activations, logits = _forward(torch, network, _torch_input(torch, calibration))
    ranges = [(0.0, a.max().item()) for a in activations]
    logit_ranges = [(l.min().item(), l.max().item()) for l in logits]
    return _quantise(network, ranges, logit_ranges)


# ---- quantisation


def _affine(low: float, high: float) -> dict:
    """int8 scale and zero point of a range, which always contains 0."""
    low, high = min(low, 0.0), max(high, 0.0, low + 1e-6)
    scale = (high - low) / 255
    return {"scale": scale, "zero_point": int(np.clip(round(-128 - low / scale), -128, 127))}


def _parameters(x, weights: np.ndarray, bias: np.ndarray, axis: int | None) -> tuple:
    """int8 weights, int32 bias, weight scale for an operator that reads x."""
    quantised, scale = quantise_weights(weights, axis)
    return quantised, np.rint(bias / (x.scale * scale.astype(np.float64))).astype(np.int32), scale


def _quantise(network, ranges: list, logit_ranges: list) -> bytes:
    """The .tflite file: trunk and heads in execution order, outputs shallow to deep."""

    def numpy(tensor) -> np.ndarray:
        return tensor.detach().numpy().astype(np.float64)

    net = TfliteWriter("digits: handwritten digits, three exits")
    x = net.input((1, INPUT_PIXELS, INPUT_PIXELS, 1), scale=1 / 255, zero_point=-128, name="view")
    outputs, ranges = [], iter(ranges)
    for number, (stage, convolutions, head) in enumerate(
        zip(STAGES, network.trunk, network.heads, strict=True), start=1
    ):
        for letter, (convolution, norm) in zip("abcdef", convolutions, strict=False):
            gain = numpy(norm.weight) / np.sqrt(numpy(norm.running_var) + norm.eps)
            weights = numpy(convolution.weight).transpose(0, 2, 3, 1) * gain[:, None, None, None]
            bias = numpy(norm.bias) - numpy(norm.running_mean) * gain
            x = net.conv_2d(
                x,
                *_parameters(x, weights, bias, axis=0),
                **_affine(*next(ranges)),
                stride=convolution.stride[0],
                activation="RELU",
                name=f"stage{number}{letter}",
            )
        name = f"exit{number}"
        if stage.pool:
            features = net.flatten(net.average_pool_2d(x, stage.pool, name=f"{name}/pool"), name=f"{name}/flatten")
        else:
            features = net.mean(x, name=f"{name}/mean")
        logits = net.fully_connected(
            features,
            *_parameters(features, numpy(head.weight), numpy(head.bias), axis=None),
            **_affine(*logit_ranges[number - 1]),
            name=f"{name}/logits",
        )
        outputs.append(net.softmax(logits, name=name))
    return net.to_bytes(outputs)


# ---- evaluation


def exit_logits(model: Path | str, inputs: np.ndarray) -> list[np.ndarray]:
    """Dequantised logits [N, classes] of every exit for int8 inputs [N, ...], by the reference kernels."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(Path(model).read_bytes(), 0)).subgraphs[0]
    producers = {op.outputs[0]: op for op in graph.operators}
    exits = [producers[output].inputs[0] for output in graph.outputs]  # what each SOFTMAX reads
    interpreter = Interpreter(
        str(model),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    rows = []
    for x in inputs:
        interpreter.set_tensor(source, x[None])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(index)[0] for index in exits])
    result = []
    for i, index in enumerate(exits):
        quantization = graph.tensors[index].quantization
        values = np.array([row[i] for row in rows], np.float64)
        result.append((values - quantization.zeroPoint[0]) * quantization.scale[0])
    return result


@dataclass(frozen=True)
class Evaluation:
    """What the exit rule gives on labelled views; all shares in 0..1.

    exits [N]: where each view leaves (0 = first exit). right [N]: whether its class is right there.
    exit_accuracy: of each exit on all views. interval: 95 % Wilson interval of `accuracy`, views taken as independent.
    """

    exits: np.ndarray
    right: np.ndarray
    exit_accuracy: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(int(self.right.sum()), len(self.right))

    @property
    def shares(self) -> tuple[float, ...]:
        counts = np.bincount(self.exits, minlength=len(self.exit_accuracy))
        return tuple(float(n) / len(self.exits) for n in counts)

    def digit_interval(self, digits: np.ndarray, resamples: int = 2000) -> tuple[float, float]:
        """95 % bootstrap interval of `accuracy` over source digits [N]: views of one digit are not independent."""
        _, group = np.unique(digits, return_inverse=True)
        right, count = np.bincount(group, self.right), np.bincount(group)
        drawn = np.random.default_rng(0).integers(0, len(count), (resamples, len(count)))
        low, high = np.quantile(right[drawn].sum(1) / count[drawn].sum(1), (0.025, 0.975))
        return float(low), float(high)


def evaluate(logits: list[np.ndarray], labels: np.ndarray, threshold: float = THRESHOLD) -> Evaluation:
    """Apply the exit rule to the logits [N, classes] of every exit, shallow to deep; the last exit always leaves."""
    answers, confident = [], []
    for values in logits:
        power = np.exp(values - values.max(1, keepdims=True))
        answers.append(values.argmax(1))
        confident.append((power / power.sum(1, keepdims=True)).max(1) >= threshold)
    confident[-1] = np.ones(len(labels), bool)
    exits = np.argmax(confident, axis=0)
    right = np.choose(exits, answers) == labels
    return Evaluation(exits, right, tuple(float((answer == labels).mean()) for answer in answers))


def report(result: Evaluation, digits: np.ndarray) -> str:
    """The table of models/README.md."""
    lines = ["| exit | MACs | right, all views | leaves here |", "|---|---|---|---|"]
    rows = zip(macs_to_exit(), result.exit_accuracy, result.shares, strict=True)
    lines += [f"| {i} | {m:,} | {a:.1%} | {s:.1%} |" for i, (m, a, s) in enumerate(rows, start=1)]
    low, high = result.interval
    digit_low, digit_high = result.digit_interval(digits)
    macs = sum(m * s for m, s in zip(macs_to_exit(), result.shares, strict=True))
    return "\n".join(
        [
            *lines,
            "",
            f"At threshold {THRESHOLD}: {result.accuracy:.1%} of {len(digits):,} views right",
            f"(95 % interval {low:.1%} to {high:.1%}, Wilson; {digit_low:.1%} to {digit_high:.1%} by bootstrap over",
            f"the {len(np.unique(digits))} source digits), {macs / macs_to_exit()[-1]:.1%} of the MACs.",
        ]
    )


def main(
    models: Annotated[Path, typer.Option(help="Folder of digits.tflite and digits_views.npz.")] = MODELS,
    evaluate_only: Annotated[bool, typer.Option("--evaluate", help="Measure what is there.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Views of each training digit.")] = EPOCHS,
    seed: Annotated[int, typer.Option(help="Of the initial weights and the training views.")] = SEED,
) -> None:
    """Train, quantise and write the digits network, or measure the one that is there."""
    network, views_file = models / "digits.tflite", models / "digits_views.npz"
    if not evaluate_only:
        images, labels = load_digit_images()
        training, _ = split_digits()
        models.mkdir(parents=True, exist_ok=True)
        network.write_bytes(train(images[training], labels[training], epochs=epochs, seed=seed))
        held_out_views().save(views_file)
    views = Views.load(views_file)
    print(report(evaluate(exit_logits(network, views.model_inputs()), views.labels), views.digits))


if __name__ == "__main__":
    typer.run(main)
