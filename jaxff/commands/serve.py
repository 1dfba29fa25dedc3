"""Command that computes forces for another program, through a socket."""

from __future__ import annotations

import time
import warnings

from jaxff.commands.options import START_OF_MODEL, count, model_option, positive
from jaxff.commands.shared import load_potential, load_start, say_unknown
from jaxff.errors import InputError

HELP = "Compute the forces of a model for i-PI, ASE or another program, through a socket."
MORE = (
    "The other program is the server in the protocol of i-PI, and jaxff connects to it as client. "
    "One client computes replicas, such as the beads of a path integral, one after another; start "
    "this command several times to compute them in parallel."
)
EXAMPLE = "jaxff serve hybrid.npz ethanol.xyz --unix ethanol"

PORT = 31415  # of i-PI


def options(sub) -> None:
    model_option(sub)
    sub.add_argument(
        "start", nargs="?", metavar="START",
        help=f"{START_OF_MODEL}; it gives the order of the atoms (default: that of MODEL)",
    )  # fmt: skip
    where = sub.add_mutually_exclusive_group()
    where.add_argument("--unix", metavar="NAME", help="name of a UNIX socket, /tmp/ipi_NAME")
    where.add_argument("--port", type=count, help=f"port of the server (default {PORT})")
    sub.add_argument("--host", default="localhost", help="computer of the server, for --port")
    sub.add_argument(
        "--wait", type=positive(float), default=60.0, metavar="S",
        help="longest time to wait for the server to start, s",
    )  # fmt: skip


def run(arguments, console) -> dict:
    from jaxff.ase import Calculator

    potential = load_potential(arguments.model, arguments)
    say_unknown(console, arguments.model, potential)
    start = arguments.model if arguments.start is None else arguments.start
    atoms = load_start(start, potential, arguments.seed, arguments.trust).to_ase()
    atoms.calc = Calculator(potential)
    atoms.get_forces()  # compiles, and raises errors, before the server waits
    client, evaluations = _connected(arguments, console), 0
    console("serving forces", 0.0)
    try:
        for _ in client.irun(atoms, use_stress=False):
            evaluations += 1
    except OSError as error:
        raise InputError(
            f"the connection to the server broke after {evaluations} evaluations ({error}): "
            "start the server again, and then this command"
        ) from error
    finally:
        client.close()
    console.close()
    console.say(f"the server ended the connection after {evaluations} evaluations")
    return {"evaluations": evaluations}


def _connected(arguments, console):
    """Connect to the server, and wait for its start if necessary.

    Raises:
        InputError: there is no server.
    """
    from ase.calculators.socketio import SocketClient

    port, name = arguments.port or PORT, arguments.unix
    where = f"the UNIX socket {name}" if name else f"{arguments.host}:{port}"
    console(f"waiting for the server at {where}", 0.0)
    end = time.monotonic() + arguments.wait
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # ASE leaves failed sockets open
        while True:
            try:
                return SocketClient(arguments.host, None if name else port, name)
            except OSError as error:
                reason = error.strerror or str(error)
            if time.monotonic() > end:
                break
            time.sleep(0.2)
    raise InputError(
        f"there is no server at {where} ({reason}): start i-PI or the program with the "
        "SocketIOCalculator of ASE, or raise --wait"
    )
