"""The command line; what each command does stands in `jaxff.commands`."""

from __future__ import annotations

import _thread
import argparse
import os
import sys
import threading
import time
from importlib import import_module

from jaxff import __version__
from jaxff.commands.options import count
from jaxff.commands.shared import write_json
from jaxff.errors import InputError
from jaxff.npz import writable_file

# Each is a module of `jaxff.commands`: HELP, EXAMPLE, perhaps MORE, `options` and `run`.
COMMANDS = (
    "demo",
    "parametrize",
    "fit",
    "train",
    "evaluate",
    "md",
    "scan",
    "minimize",
    "spectrum",
    "label",
    "active",
    "reproduce",
    "info",
)


def parser() -> argparse.ArgumentParser:
    """The parser of every command; `command` in its result names the one chosen."""
    top = argparse.ArgumentParser(
        prog="jaxff", description="Differentiable force fields on JAX: sGDML, GAFF, hybrids."
    )
    top.add_argument("--version", action="version", version=f"jaxff {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = import_module(f"jaxff.commands.{name}")
        sub = commands.add_parser(
            name,
            help=command.HELP,
            description=f"{command.HELP}\n{getattr(command, 'MORE', '')}".strip(),
            epilog=f"example:\n  {command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--seed", type=count, default=0, help="of every random choice (default 0)")
        sub.add_argument("--json", metavar="FILE", help="write the results for programs")
        command.options(sub)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when done, 1 when it failed, 2 for wrong usage."""
    arguments = parser().parse_args(argv)
    otherwise, sys.unraisablehook = sys.unraisablehook, _interrupts_again(sys.unraisablehook)
    try:
        if arguments.json is not None:
            writable_file(arguments.json)
        results = run(arguments)
        if arguments.json is not None:
            write_json(arguments.json, results)
        return 0
    except (InputError, OSError, ArithmeticError) as error:
        print(f"jaxff {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"jaxff {arguments.command}: interrupted", file=sys.stderr)
        return 1
    finally:
        sys.unraisablehook = otherwise


def _interrupts_again(otherwise):
    """A hook for exceptions that have nowhere to go: Ctrl-C during JAX's callbacks of the garbage
    collector is one, and would be lost."""

    def hook(lost) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, _thread.interrupt_main).start()  # once this hook has returned
        else:
            otherwise(lost)

    return hook


def run(arguments) -> dict:
    """Run a parsed command and return its results with what they cost."""
    folder = getattr(arguments, "compilation_cache", None)
    if folder is not None:
        # XLA reports, for each function it finds there, flags that it set itself as foreign.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    from jaxff import memory
    from jaxff.console import Console
    from jaxff.info import versions

    jax.config.update("jax_enable_x64", True)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", folder)
        # The default of one second would skip nearly everything here.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    console = Console()
    started = time.perf_counter()
    try:
        command = import_module(f"jaxff.commands.{arguments.command}")
        results = command.run(arguments, console)
    except BaseException:
        console.close("stopped")
        raise
    console.close()
    return {
        **results,
        "command": arguments.command,
        "seed": arguments.seed,
        "seconds": {**console.seconds, "total": time.perf_counter() - started},
        "peak_memory_gb": memory.peak() / 1e9,
        "versions": versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
