"""The experiments of the paper."""

from __future__ import annotations

from dataclasses import asdict

from jaxff.commands.shared import load_dataset, writable_folder
from jaxff.paper import EXPERIMENTS

HELP = "Experiments of Sauceda et al. (2020), beside what the paper reports."
MORE = "Everything is kept in DIR; the same command goes on where it was interrupted."
EXAMPLE = "jaxff reproduce table2 --data md17_ethanol.npz --data md17_aspirin.npz -o paper"


def options(sub) -> None:
    sub.add_argument("experiment", choices=("all", *EXPERIMENTS))
    sub.add_argument(
        "--data", action="append", metavar="DATA.npz",
        help="of ethanol, keto-malondialdehyde or aspirin, in place of the packaged set",
    )  # fmt: skip
    sub.add_argument("--length-unit", help="override the files' unit of length")
    sub.add_argument("--energy-unit", help="override the files' unit of energy")
    sub.add_argument("--small", action="store_true", help="in minutes: shows that it works")
    sub.add_argument("-o", "--output", required=True, metavar="DIR")


def run(arguments, console) -> dict:
    from jaxff.paper import reproduce

    out = writable_folder(arguments.output)
    data = [load_dataset(arguments, path) for path in arguments.data or ()]
    results = reproduce(
        arguments.experiment,
        out,
        data=data,
        small=arguments.small,
        seed=arguments.seed,
        progress=console,
    )
    console.close()
    for result in results.values():
        console.say(f"\n{result.title}\n  paper: {result.reported}\n  here: {result.found}")
        console.say(f"  verdict: {result.verdict}. {result.why}")
    console.say(f"\nwrote {out}/: open index.html")
    return {"results": {name: asdict(result) for name, result in results.items()}}
