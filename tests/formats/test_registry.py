"""Registries of formats and forms: what the command line offers is what exists."""

import argparse

import numpy as np
import pytest

import jaxff
from jaxff.commands import fit, options
from jaxff.errors import InputError
from jaxff.formats import potentials, registry
from jaxff.gaff import FORMS
from jaxff.npz import write_npz


@pytest.mark.parametrize("form", registry.FORCE_FIELDS, ids=lambda form: form.module)
def test_every_format_reads_and_writes(form):
    module = form.load()
    assert callable(module.read)
    assert callable(module.write)
    assert all(registry.format_of(f"x{suffix}") is form for suffix in form.suffixes)
    assert options.force_fields(form.suffixes[0][1:]) == [form.suffixes[0][1:]]


def test_a_file_that_cannot_accompany_a_format_is_named(tmp_path):
    for name in ("x.prmtop", "x.gro"):
        (tmp_path / name).write_text("")
    with pytest.raises(
        InputError, match=r"x\.gro cannot be read together with this file; give one file .*\.inpcrd"
    ):
        jaxff.read_force_field(tmp_path / "x.prmtop", tmp_path / "x.gro")


def test_forms_are_those_of_the_registry():
    molecule = jaxff.Molecule.from_smiles("CO")
    kinds = {
        form: jaxff.gaff(molecule, charges="gasteiger", form=form).program.placed[0].term.kind
        for form in ("gaff", "morse", "class2")
    }
    assert kinds == {"gaff": "harmonic_bond", "morse": "morse_bond", "class2": "class2"}
    with pytest.raises(InputError, match=r"form must be one of gaff, morse, nn, class2 .got 'mm3'"):
        jaxff.gaff(molecule, charges="gasteiger", form="mm3")
    parser = argparse.ArgumentParser()
    fit.options(parser)
    (action,) = (a for a in parser._actions if a.dest == "form")
    assert tuple(action.choices) == tuple(FORMS)


def test_model_files_are_recognised_by_their_arrays(tmp_path, monkeypatch):
    write_npz(tmp_path / "x.npz", {"mine": np.zeros(2)})
    with pytest.raises(InputError, match="not a potential written by jaxff, nor an sGDML model"):
        jaxff.load(tmp_path / "x.npz")
    model = potentials.Model("mine", ("mine",), lambda path, trust: (path.name, trust))
    monkeypatch.setattr(potentials, "MODELS", (*potentials.MODELS, model))
    assert jaxff.load(tmp_path / "x.npz", ["package"]) == ("x.npz", ["package"])
    assert potentials.read_potential(tmp_path / "x.npz", ["package"])[1] == ["package"]


def test_functions_keep_their_names_when_modules_are_imported():
    from jaxff.gaff.force_constants import seminario
    from jaxff.gaff.parametrization import gaff, parametrize

    assert jaxff.gaff.seminario is seminario
    assert jaxff.parametrize is jaxff.gaff.parametrize is parametrize
    assert jaxff.gaff.gaff is gaff
    assert set(jaxff.__all__) <= set(dir(jaxff))
