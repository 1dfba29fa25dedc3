"""`jaxff.md.simulate` with the settings of all its objects by name, for parametrised tests."""

from dataclasses import fields

from jaxff import md

ANY = {item.name for kind in md.ENSEMBLES.values() for item in fields(kind)}


def objects(ensemble="langevin", state=None, **settings):
    """Arguments of `simulate`; settings that only other ensembles have are left out."""
    kind = md.ENSEMBLES[ensemble]
    settings = {"every": 10, **settings}
    parts = {
        name: {f.name: settings.pop(f.name) for f in fields(cls) if f.name in settings}
        for name, cls in (("start", md.Start), ("output", md.Output), ("stop", md.Stop))
    }
    known = {f.name for f in fields(kind)}
    numbers = {name: settings.pop(name) for name in ANY & settings.keys()}
    return {
        "ensemble": kind(**{name: value for name, value in numbers.items() if name in known}),
        "start": state or md.Start(**parts["start"]),
        "output": md.Output(**parts["output"]),
        "stop": md.Stop(**parts["stop"]),
        **settings,
    }


def simulate(potential, molecule, **settings):
    return md.simulate(potential, molecule, **objects(**settings))
