"""The command line; what each command does stands in `jaxff.commands`."""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module

from jaxff.commands.shared import write_json
from jaxff.errors import InputError
from jaxff.npz import writable_file
from jaxff.options import parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when done, 1 when it failed, 2 for wrong usage."""
    arguments = parser().parse_args(argv)
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
    finally:
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
