"""Drawings of molecules with GAFF types and charges."""

from __future__ import annotations

from pathlib import Path

from jaxff.errors import InputError
from jaxff.gaff.parametrization import Parametrization
from jaxff.npz import atomic_path

SIZE = 120  # times N^0.75: pixels of the longer side of a drawing of N atoms
SMALLEST, LARGEST = 500, 1600  # pixels


def depict(parametrization: Parametrization, path) -> None:
    """Draw the molecule with the type and charge of each atom.

    Args:
        parametrization: the molecule with types and charges.
        path: an svg or png file.

    Raises:
        InputError: the suffix is not svg or png, or the file cannot be written.
    """
    from rdkit.Chem import rdDepictor
    from rdkit.Chem.Draw import rdMolDraw2D

    kind = Path(path).suffix.lower()
    if kind not in (".svg", ".png"):
        raise InputError(f"{path}: the suffix of a drawing must be .svg or .png (got {kind!r})")
    mol = parametrization.lewis.to_rdkit()
    rdDepictor.SetPreferCoordGen(True)
    rdDepictor.Compute2DCoords(mol)
    for atom, (type_, charge) in enumerate(
        zip(parametrization.atom_types, parametrization.charges, strict=True)
    ):
        mol.GetAtomWithIdx(atom).SetProp("atomNote", f"{type_} {charge:+.2f}")
    side = min(max(SMALLEST, round(SIZE * mol.GetNumAtoms() ** 0.75)), LARGEST)
    drawer = (rdMolDraw2D.MolDraw2DSVG if kind == ".svg" else rdMolDraw2D.MolDraw2DCairo)(
        side, round(0.75 * side)
    )
    options = drawer.drawOptions()
    options.annotationFontScale = 0.55
    options.addStereoAnnotation = False
    options.setAtomPalette({-1: (0.0, 0.0, 0.0)})
    options.setAnnotationColour((0.0, 0.27, 0.55))
    drawer.DrawMolecule(mol)
    drawer.FinishDrawing()
    picture = drawer.GetDrawingText()
    with atomic_path(path) as temporary:
        data = picture.encode() if isinstance(picture, str) else picture
        Path(temporary).write_bytes(data)
