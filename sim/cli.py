"""The ``fluidnpu`` command line."""

import sys

import typer

from .attach_command import attach_exits
from .bench_command import bench
from .build_commands import compile_program, lint, verilog
from .network_command import write_network
from .options import MODELS
from .run_command import run
from .sim_command import report, sim
from .study_command import study

__all__ = ["MODELS", "app", "main"]

app = typer.Typer(
    name="fluidnpu",
    help="An NPU that serves early-exit networks: simulate it, run images on it, compile networks for it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(sim)
app.command()(run)
app.command()(bench)
app.command()(study)
app.command("compile")(compile_program)
app.command("attach-exits", context_settings={"allow_extra_args": True})(attach_exits)
app.command("make-network")(write_network)
app.command()(verilog)
app.command()(lint)
app.command()(report)


def main(arguments=None):
    """Entry point. Exit codes: 0; 1 wrong answers or a simulation that failed; 2 bad input, in one line."""
    from typer.exceptions import TyperException

    try:
        code = app(arguments, prog_name="fluidnpu", standalone_mode=False)
    except TyperException as error:
        code = _complain(error.format_message(), error.exit_code)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not error.filename:
            raise
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        code = _complain(text, 2)
    except (RuntimeError, AssertionError) as error:
        code = _complain(f"{type(error).__name__}: {error}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(text, code):
    if text:
        print(f"fluidnpu: {text}", file=sys.stderr)
    return code
