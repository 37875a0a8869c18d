"""The application: its commands, and what becomes of errors."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from terrarium.cli import grown, looking, running, words
from terrarium.cli.console import tell
from terrarium.cli.crash import write_log
from terrarium.errors import TerrariumError

INTERRUPTED = words.StoppedError.exit_code
_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]  # typer brings its own copy of click

app = typer.Typer(
    name="terrarium",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Grow small models in worlds whose exact right output is known, and measure what they "
    "say, what they know and what is optimal.",
    epilog="Start here:  [bold]terrarium run says-knows --size smoke[/bold]\n\n"
    "Results stay in the store (TERRARIUM_HOME); the same command goes on where it was stopped.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"terrarium {version('terrarium')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Show where an error came from (any place on the line)."),
    ] = False,
) -> None:
    """Take the options that stand before the command."""


for _module in (running, looking, grown):
    _module.add_to(app)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error becomes one sentence."""
    traceback = "--traceback" in arguments
    try:
        without = [a for a in arguments if a != "--traceback"]
        code = app(without, prog_name="terrarium", standalone_mode=False)
        sys.stdout.flush()
        # Where nobody catches Ctrl-C, typer turns it into this code.
        return _stopped() if code == INTERRUPTED else int(code or 0)
    except _CLICK_ERROR as error:
        return _usage(error)
    except TerrariumError as error:
        if traceback:
            raise
        tell(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _stopped()
    except BrokenPipeError:
        # Whoever read our output has enough (``| head``); nothing more may be flushed there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if traceback:
            raise
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    words = " ".join(str(error).split())
    what = f"{type(error).__name__}: {words}" if words else type(error).__name__
    if _no_memory(error):
        tell(f"This needs more memory than there is ({what}); make model, batch or data smaller.")
    else:
        tell(
            f"Something unexpected happened ({what}); the traceback is in {write_log(error)}. "
            "Add --traceback to see it here."
        )
    return 1


def _no_memory(error: BaseException) -> bool:
    # PyTorch has no class of its own for the CPU's.
    told = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in told or "out of memory" in told)
    )


def _stopped() -> int:
    tell("Stopped; the same command goes on from what is stored.")
    return INTERRUPTED


def _usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "terrarium"
    message = " ".join(error.format_message().split())
    if message:  # without any argument the help is all there is to say
        tell(f"{message}{'' if message.endswith(('.', '?')) else '.'} See: {path} --help")
    return int(error.exit_code)
