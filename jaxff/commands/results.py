"""JSON results of the commands, and their schemas.

`--json FILE` writes one object.  It contains the results of the command (see `RESULTS`) and, under
the key "run", the seed, times, memory and versions of the run.  Numbers that are not finite are
written as null.  The guide docs/json.md lists the same keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.npz import atomic_path

FORMAT = "jaxff results 1"
Schema = dict[str, Any]  # a JSON Schema, draft 2020-12


def write_json(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write the results of a command atomically to a JSON file."""
    with atomic_path(path) as temporary:
        text = json.dumps(json_value(results), indent=1, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def json_value(value: Any) -> Any:
    """Convert a result to JSON values.

    Arrays become lists, paths become text, and numbers that are not finite become None.

    Raises:
        TypeError: a value of another type.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy and JAX
        return json_value(np.asarray(value).tolist())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    raise TypeError(
        f"results cannot contain a {type(value).__name__}: use numbers, text, paths, arrays, "
        "sequences and mappings"
    )


def schema(command: str) -> Schema:
    """Return the JSON Schema of the file that `--json` writes for a command."""
    shape = RESULTS[command]
    required = [*shape["required"], "run"]
    return {**shape, "properties": {**shape["properties"], "run": RUN}, "required": required}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of an object that has only these keys."""
    properties = {**required, **(optional or {})}
    return {
        "type": "object", "properties": properties, "required": list(required),
        "additionalProperties": False,
    }  # fmt: skip


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _or(*shapes: Schema) -> Schema:
    return {"anyOf": list(shapes)}


TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
MAYBE: Schema = {"type": ["number", "null"]}  # null: not finite, or not available
FLAG: Schema = {"type": "boolean"}
NONE: Schema = {"type": "null"}
ANY: Schema = {}
FILES = _list(TEXT)

RUN = _object(
    {
        "format": {"const": FORMAT},
        "command": TEXT,
        "seed": WHOLE,
        "seconds": _map(NUMBER),  # of each phase, and "total"
        "peak_memory_gb": NUMBER,
        "versions": _map(TEXT),
    }
)
METRICS = _object(
    {"force_mae": NUMBER, "force_rmse": NUMBER},  # kcal/mol/Å
    {"energy_mae": MAYBE, "energy_rmse": MAYBE},  # kcal/mol
)
PARTS = {"train": METRICS, "valid": METRICS, "test": METRICS}
COVERAGE = _or(_map(NUMBER), NONE)
MODEL = {**PARTS, "coverage": COVERAGE, "model": TEXT}
OUTSIDE = _or(  # geometries outside the training data; null: unknown or not compared
    _object(
        {
            "frames": WHOLE, "outside": WHOLE, "share": NUMBER, "reason": TEXT,
            "energy_below": NUMBER,  # kcal/mol
        },
        {"first": _or(WHOLE, NONE), "step": _or(WHOLE, NONE), "replica": _or(WHOLE, NONE)},
    ),
    NONE,
)  # fmt: skip
SURFACE = _object(
    {
        "lowest": NUMBER, "range": NUMBER,  # kcal/mol
        "lowest_at": _list(NUMBER),  # degrees or Å
        "points": WHOLE, "not_converged": WHOLE,
    },
    {"extrapolation": OUTSIDE},
)  # fmt: skip
AVERAGE = _object({"mean": NUMBER, "error": MAYBE})
CHANGE = _object(
    {"name": TEXT, "label": TEXT, "start": NUMBER, "fitted": NUMBER, "error": MAYBE, "unit": TEXT}
)
LEVEL = _object(
    {
        "name": TEXT, "force_mae": NUMBER, "force_rmse": NUMBER,  # kcal/mol/Å
        "sigma": NUMBER, "lam": NUMBER, "prior": MAYBE,
        "teacher": _or(TEXT, NONE), "frames": WHOLE,
    }
)  # fmt: skip
TEACHER = _object(
    {
        "name": TEXT, "frames": WHOLE, "failed": WHOLE, "temperature": MAYBE,  # K
        "student": _or(METRICS, NONE),  # errors of the student against the teacher
        "levels": _list(LEVEL), "chosen": _or(TEXT, NONE),  # with cheaper teachers
    }
)  # fmt: skip
TEACHERS = _object(
    {
        "teachers": _list(TEACHER), "refused": _map(TEXT),
        "levels": _list(LEVEL), "chosen": TEXT, "helps": FLAG,
        "skipped": _list(TEXT),
    }
)  # fmt: skip
EXPERIMENT = _object({}) | {"additionalProperties": True}  # different for each experiment

RESULTS: dict[str, Schema] = {
    "demo": _object(
        {
            "molecule": TEXT, "theory": TEXT, "frames": _map(WHOLE),
            "models": _map(_object({"test": METRICS})), "sigma": ANY, "md": EXPERIMENT,
        }
    ),
    "parametrize": _object(
        {
            "name": TEXT, "formula": TEXT, "net_charge": WHOLE, "charge_method": TEXT,
            "parameters": TEXT,
            "atoms": _list(
                _object({"element": TEXT, "type": TEXT, "charge": NUMBER, "because": TEXT})
            ),
            "terms": _list(
                _object(
                    {
                        "kind": TEXT, "atoms": _list(WHOLE), "types": _list(TEXT), "values": ANY,
                        "source": TEXT, "analogy": TEXT, "penalty": NUMBER,
                    }
                )
            ),
            "estimates": WHOLE, "worst_penalty": NUMBER, "files": FILES,
        }
    ),
    "solvate": _object(
        {
            "particles": WHOLE, "molecules": _map(WHOLE), "net_charge": WHOLE,
            "box": _list(NUMBER), "density": NUMBER, "files": FILES,
        }
    ),
    "export": _object({"files": FILES}),
    "serve": _object({"evaluations": WHOLE}),
    "fit": _object(
        {},
        {
            **MODEL, "molecules": _list(_object({"model": TEXT}, MODEL)),
            "converged": FLAG, "steps": WHOLE, "history": _map(_list(MAYBE)),
            "changes": _list(CHANGE), "teacher": TEACHERS,
        },
    ),
    "train": _object(
        {
            "sigma": NUMBER,  # 1/Å
            "lam": NUMBER, "permutations": _list(_list(WHOLE)), "trials": _list(ANY),
            "coverage": COVERAGE, "model": TEXT,
        },
        PARTS,
    ),
    "evaluate": _object(
        {"trained_on": _or(WHOLE, NONE), "extrapolation": OUTSIDE},
        {"all": METRICS, "train": METRICS, "test": METRICS},
    ),
    "md": _object(
        {
            "mean_temperature": _or(NUMBER, _list(NUMBER)),  # K
            "degrees_of_freedom": _or(NUMBER, _list(NUMBER)),
            "frames": WHOLE, "steps_per_second": NUMBER, "ns_per_day": NUMBER,
            "trajectory": _or(TEXT, FILES), "temperature_is_off": FLAG,
            "extrapolation": OUTSIDE,
        },
        {
            "system": _object(
                {
                    "temperature": AVERAGE,  # K
                    "density": AVERAGE,  # g/cm³
                    "volume": AVERAGE,  # Å³
                    "pressure": AVERAGE,  # bar
                    "steps": WHOLE, "rebuilds": WHOLE, "coordinates": FILES,
                }
            ),
        },
    ),
    "scan": _object(
        {"coordinates": _list(TEXT), "models": _map(SURFACE), "files": FILES},
        {"difference": _list(NUMBER)},  # lowest and highest, kcal/mol
    ),
    "minimize": _object(
        {},
        {
            "energy_before": NUMBER, "energy": NUMBER,  # kcal/mol
            "max_force": NUMBER,  # kcal/mol/Å
            "steps": WHOLE, "minimum": TEXT,
            "frequencies": _list(_or(NUMBER, _list(NUMBER))),  # cm⁻¹
            "energies": _list(NUMBER), "counts": _list(WHOLE), "saddle_energies": _list(NUMBER),
            "saddle_frequencies": _list(_list(NUMBER)), "not_converged": WHOLE, "minima": TEXT,
            "extrapolation": OUTSIDE,
        },
    ),
    "spectrum": _object(
        {
            "spectra": _map(
                _object(
                    {
                        "resolution": NUMBER,  # cm⁻¹
                        "blocks": WHOLE,
                        "peaks": _list(
                            _object({"wavenumber": NUMBER, "error": MAYBE, "density": NUMBER})
                        ),
                    }
                )
            ),
            "shifts": _list(_object({"shifts": _list(MAYBE), "errors": _list(MAYBE)})),
            "files": FILES,
        }
    ),
    "label": _object(
        {
            "data": TEXT, "frames": WHOLE, "theory": TEXT, "topology": _or(TEXT, NONE),
            "charge": _or(WHOLE, NONE), "reactions": _or(TEXT, NONE),
            "failed": _list(WHOLE), "rebonded": _list(WHOLE),
            "net_force": NUMBER,  # kcal/mol/Å
            "net_torque": NUMBER,  # kcal/mol
        }
    ),
    "active": _object(
        {
            "reached": FLAG, "frames": WHOLE, "theory": TEXT, "rounds": _list(_map(ANY)),
            "model": TEXT, "data": TEXT,
        }
    ),
    "holes": _object(
        {
            "holes": _list(_object({"energy": NUMBER, "origin": TEXT, "reason": TEXT})),
            "rounds": _list(
                _object({"found": WHOLE, "wrong": WHOLE, "depth": NUMBER, "force_rmse": NUMBER})
            ),
            "closed": _or(FLAG, NONE),
            "model": _or(TEXT, NONE),
            "files": FILES,
        }
    ),
    "reproduce": _object({"results": _map(EXPERIMENT)}),
    "info": _object(
        {"kind": TEXT, "file": _or(TEXT, NONE), "facts": _map(ANY)},
        {"check": TEXT},
    ),
}  # fmt: skip
