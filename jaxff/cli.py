"""The command line; each command is a module of `jaxff.commands`."""

from __future__ import annotations

import _thread
import argparse
import os
import re
import sys
import threading
import time
from importlib import import_module

from jaxff import __version__
from jaxff.commands.folders import remove_empty_folders
from jaxff.commands.options import HelpWithDefaults, Parser, count
from jaxff.commands.results import FORMAT, write_json
from jaxff.errors import InputError
from jaxff.npz import writable_file

# Each of these modules defines HELP, EXAMPLE, `options` and `run`, and may define MORE.
COMMANDS = (
    "demo",
    "parametrize",
    "solvate",
    "export",
    "fit",
    "train",
    "evaluate",
    "md",
    "scan",
    "minimize",
    "spectrum",
    "label",
    "active",
    "holes",
    "serve",
    "reproduce",
    "info",
)


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line; it stores the command name as `command`."""
    top = Parser(
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
            formatter_class=HelpWithDefaults,
        )
        # argparse takes "-1,0" for an option, unless it looks like a negative number.
        sub._negative_number_matcher = re.compile(r"-[\d.][-+\d.,eE]*$")
        sub.add_argument("--seed", type=count, default=0, help="random seed")
        sub.add_argument("--json", metavar="FILE", help="write the results as JSON")
        command.options(sub)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit status: 0 for success, 1 for failure.

    Args:
        argv: the arguments after "jaxff"; None: the arguments of the process.

    Raises:
        SystemExit: the usage is wrong (status 2), or help or the version is printed (status 0).
    """
    arguments = parser().parse_args(argv)
    previous, sys.unraisablehook = sys.unraisablehook, _interrupting(sys.unraisablehook)
    try:
        if arguments.json is not None:
            writable_file(arguments.json)
        results = run(arguments)
        if arguments.json is not None:
            write_json(arguments.json, results)
        if results.get("reached", True):
            return 0
        print(f"jaxff {arguments.command}: the target is not reached, see above", file=sys.stderr)
        return 1
    except (InputError, OSError, ArithmeticError) as error:
        print(f"jaxff {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"jaxff {arguments.command}: interrupted", file=sys.stderr)
        return 1
    finally:
        sys.unraisablehook = previous


def _interrupting(previous):
    """Make a hook that sends unraisable KeyboardInterrupts to the main thread.

    Without this hook, Ctrl-C has no effect during a callback of JAX in the garbage collector.

    Args:
        previous: the hook for all exceptions except KeyboardInterrupt.
    """

    def hook(unraisable) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, _thread.interrupt_main).start()  # after this hook has returned
        else:
            previous(unraisable)

    return hook


def run(arguments: argparse.Namespace) -> dict:
    """Run a command.

    Args:
        arguments: the result of `parser().parse_args`.

    Returns:
        The results of the command, and the entry "run" with its name, seed, duration, peak memory
        and versions.
    """
    folder = getattr(arguments, "compilation_cache", None)
    if folder is not None:
        # XLA warns of its flags for each function that it reads from the cache.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    from jaxff import memory
    from jaxff.console import Console
    from jaxff.info import versions

    jax.config.update("jax_enable_x64", True)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", folder)
        # By default only programs that compile for more than one second are cached.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    console = Console()
    started = time.perf_counter()
    try:
        command = import_module(f"jaxff.commands.{arguments.command}")
        results = command.run(arguments, console)
    except BaseException:
        console.close("stopped")
        raise
    finally:
        remove_empty_folders()
    console.close()
    return {
        **results,
        "run": {
            "format": FORMAT,
            "command": arguments.command,
            "seed": arguments.seed,
            "seconds": {**console.seconds, "total": time.perf_counter() - started},
            "peak_memory_gb": memory.peak() / 1e9,
            "versions": versions(),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
