"""Command that parametrizes a molecule with GAFF."""

from __future__ import annotations

from pathlib import Path

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import force_fields
from jaxff.commands.shared import load_molecule, write_geometries
from jaxff.errors import InputError
from jaxff.molecule_files import READERS

HELP = "Assign GAFF types, charges and parameters to a molecule, and report their sources."
MORE = "Writes the potential (npz), the geometry (xyz), force-field files, a drawing and a summary."
EXAMPLE = "jaxff parametrize 'CC(=O)Nc1ccc(O)cc1' --charges resp -o paracetamol"


def options(sub) -> None:
    sub.add_argument(
        "molecule", metavar="SMILES|FILE", help=f"SMILES string or file ({', '.join(READERS)})"
    )
    sub.add_argument(
        "--charges",
        default="auto",
        metavar="METHOD|FILE.mol2",
        help="resp (needs PySCF), gasteiger (approximate), am1bcc (needs antechamber) or a mol2 "
        "file (default: packaged charges of the molecule, or else resp)",
    )
    sub.add_argument(
        "--charge", type=int, metavar="Q", help="net charge, e (default: the charge of the input)"
    )
    sub.add_argument(
        "--formats",
        type=force_fields,
        default=["prmtop", "mol2"],
        metavar="F,F,...",
        help="force-field files to write: prmtop (with inpcrd), mol2 (with frcmod), top (with gro) "
        "or xml (default prmtop,mol2)",
    )
    sub.add_argument("--name", help="file name without suffix (default: molecule)")
    sub.add_argument("--no-cache", action="store_true", help="do not use cached charges")
    sub.add_argument("-o", "--output", metavar="DIR", required=True, help="output folder")


def run(arguments, console) -> dict:
    from jaxff.formats import write_force_field
    from jaxff.gaff import depict
    from jaxff.gaff import parametrize as find_parameters
    from jaxff.npz import atomic_path
    from jaxff.saved import save

    out, stem = writable_folder(arguments.output), arguments.name or "molecule"
    if Path(stem).name != stem:
        raise InputError(f"--name {stem} contains a folder: give the folder with -o")
    mol = load_molecule(arguments.molecule, arguments.charge, arguments.seed)
    console("parametrize", 0.0)
    parametrization = find_parameters(mol, arguments.charges, cache=not arguments.no_cache)
    console.close()
    console.say(parametrization.summary())
    potential = parametrization.potential()
    written = [out / f"{stem}.npz", out / f"{stem}.xyz"]
    save(written[0], potential)
    write_geometries(written[1], mol, [mol.positions])
    for form in arguments.formats:
        written += write_force_field(out / f"{stem}.{form}", potential)
    for kind in ("svg", "png"):
        written.append(out / f"{stem}.{kind}")
        depict(parametrization, written[-1])
    summary = out / f"{stem}.txt"
    with atomic_path(summary) as temporary:
        temporary.write_text(parametrization.summary() + "\n")
    written.append(summary)
    console.say(f"\nwrote {', '.join(path.name for path in written)} into {out}")
    worst = max((a.penalty for a in parametrization.estimates), default=0.0)
    return {
        **parametrization.to_dict(),
        "estimates": len(parametrization.estimates),
        "worst_penalty": worst,
        "files": [str(path) for path in written],
    }
