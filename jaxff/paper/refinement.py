"""Section IV D: adaptive refinement of a kernel that was trained on frames of GAFF."""

from __future__ import annotations

from pathlib import Path

from jaxff.analysis import Estimate
from jaxff.dataset import Dataset
from jaxff.learn import evaluate
from jaxff.paper.dynamics import TEMPERATURE
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table
from jaxff.paper.table1 import LABELS, labelled_samplings, sampling_level
from jaxff.paper.table2 import averaged
from jaxff.paper.verdicts import judged, ratio, shown
from jaxff.potential import Potential
from jaxff.reference import Labelling, Loop, Sampling, active_learning

FIRST, REFINED, MORE = "frames of GAFF", "refined", "more frames of GAFF"
NEVER = 1e-6  # kcal/mol/Å, a target that is never reached: the number of frames ends the loop


def run(setting: Setting) -> Result:
    """Compare errors on the reference's sampling before and after refinement (Section IV D)."""
    molecule = setting.size("keto-malondialdehyde", "ethanol")
    few, many = setting.size((150, 300), (24, 36))
    samplings = labelled_samplings(setting, molecule)
    test = samplings["DFT"].split(0, 0, setting.size(600, 40), seed=setting.seed).test
    errors: dict[str, list[float]] = {FIRST: [], REFINED: [], MORE: []}
    for repeat in range(setting.size(3, 1)):
        models = refine(setting, molecule, few, many, repeat)
        for name, potential in models.items():
            errors[name].append(evaluate(potential, test)["force_mae"])
    mean = {name: averaged(values) for name, values in errors.items()}
    numbers = {FIRST: few, REFINED: many, MORE: many}
    return Result(
        "Section IV D: adaptive refinement of a kernel trained on frames of GAFF",
        f"{molecule}: {sampling_level(setting, molecule, samplings)}; {setting.charge_model}",
        findings(mean),
        [
            f"The first kernel is trained on {few} frames of GAFF. Each round runs dynamics of "
            f"the kernel at {TEMPERATURE:g} K, and labels the frames with the largest predicted "
            "errors. The result is compared with a kernel trained on the same number of frames "
            "of GAFF. All kernels are tested on the same frames of the reference's sampling. "
            "Errors are standard errors over repeats. The paper proposes this refinement, but "
            "contains no results for it."
        ],
        {name: value._asdict() for name, value in mean.items()},
        [
            Table(
                "Force MAE on frames of the reference's sampling (kcal/mol/Å)",
                ["training", "frames", "MAE"],
                [[name, numbers[name], shown(value, 3)] for name, value in mean.items()],
            )
        ],
    )


def findings(errors: dict[str, Estimate]) -> list:
    """Test the paper's statement on force MAEs, kcal/mol/Å, by kind of training."""
    return [judged("refinement", {"refined": ratio(errors[REFINED], errors[MORE])})]


def refine(
    setting: Setting, molecule: str, few: int, many: int, repeat: int
) -> dict[str, Potential]:
    """Train kernels on `few` frames of GAFF, on `many` frames of GAFF, and with refinement.

    Returns the kernels by kind of training. The refined kernel starts from `few` frames of GAFF and
    has `many` frames in the end.
    """
    place = setting.place("refinement")
    data: Dataset = setting.dataset(molecule)
    labelling = Labelling(setting.reference(molecule) or LABELS, name=molecule)
    sampling = Sampling(
        TEMPERATURE, setting.size(200.0, 50.0), setting.size(5000.0, 500.0),
        replicas=setting.size(16, 2), seed=setting.seed + repeat,
    )  # fmt: skip
    training = {"sigma": setting.size((10.0, 20.0, 40.0), 20.0)}

    def learned(folder: Path, first: int, last: int) -> Potential:
        loop = Loop(
            NEVER, (many - few) // setting.size(2, 1), first, last, setting.size(400, 40),
            training=training,
        )  # fmt: skip
        return active_learning(
            setting.gaff(molecule), data.molecule, folder, loop, labelling, sampling,
            progress=setting.titled(f"refinement of {molecule}, repeat {repeat + 1}"),
        ).potential  # fmt: skip

    refined = place / f"{molecule}-refined-{repeat}"
    return {
        FIRST: learned(refined, few, few),
        REFINED: learned(refined, few, many),
        MORE: learned(place / f"{molecule}-gaff-{repeat}", many, many),
    }
