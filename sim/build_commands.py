"""The commands `fluidnpu compile`, `verilog` and `lint`: program files and hardware."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from fluidnpu.hw.config import get_config

from .options import Config, RoundingOption, Threshold, new_console

__all__ = ["compile_program", "lint", "verilog"]


def compile_program(
    network: Annotated[Path, typer.Argument(help="int8 or uint8 .tflite file; outputs are exits, shallow to deep.")],
    config: Config = "edge",
    rounding: RoundingOption = "litert",
    threshold: Threshold = (0.8,),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Program file. Default: NETWORK-CONFIG.fnp.")] = None,
):
    """Compile a network into a program file; print how its layers are mapped."""
    from fluidnpu.nn.compiler import CompileOptions

    from .compiled import compiled_program
    from .study import limits_of, load_network
    from .tables import layers_table

    net, npu, console = load_network(network, rounding), get_config(config), new_console()
    options = CompileOptions(limits=limits_of(threshold, len(net.ends)))
    with console.status(f"compiling {network.name} for {config}") as status:
        program = compiled_program(npu, net, options, status.update)
    out = out or Path(f"{network.stem}-{config}.fnp")
    program.save(out)
    console.print(layers_table(program))
    console.print(
        f"{out}: {len(program.ops)} operations, {len(program.region):,} bytes of descriptors and weights, "
        f"{program.arena_bytes:,} bytes per sample",
        soft_wrap=True,
    )


def verilog(
    config: Config = "edge",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; the files go into OUT/CONFIG.")] = Path("build"),
):
    """Write the NPU's Verilog, and a JSON file with its registers, commands, counters and ports."""
    from .generate import write_verilog

    npu = get_config(config)
    with new_console().status(f"{config}: generating Verilog"):
        paths = write_verilog(npu, out)
    for path in paths:
        print(path)


def lint(config: Annotated[list[str], typer.Option("--config", "-c", help="Repeat it for several.")] = ("edge",)):
    """Run Verilator's lint over the generated Verilog; warnings are errors."""
    from .lint import lint_verilog
    from .npu_build import cached_verilog

    configs = [get_config(name) for name in config]
    console = new_console()
    for npu in configs:
        with console.status(f"{npu.name}: generating and checking Verilog"):
            complaints = lint_verilog(cached_verilog(npu).read_text())
        if complaints:
            sys.stderr.write(complaints)
            raise typer.Exit(1)
        print(f"{npu.name}: no warnings")
