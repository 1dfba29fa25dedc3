"""A small part of the fuzzer, see fuzz.py."""

import fuzz


def test_damaged_files_and_wrong_options_are_refused_in_one_sentence():
    with fuzz.prepared() as fuzzer:
        outcomes = [fuzzer.run(number) for number in range(30)]
    faults = [f"{o.what}\n{o.fault}" for o in outcomes if o.fault]
    assert not faults, "\n".join(faults)
    assert {o.kind for o in outcomes} >= {"accepted", "refused"}
    assert sum(bool(o.nonsense) for o in outcomes) <= 1, [o.what for o in outcomes if o.nonsense]


def test_the_fuzzer_notices_what_it_looks_for(monkeypatch):
    """A reader that raises an unclear error, and one that hangs, are faults."""

    def broken(path):
        raise KeyError(path)

    def hangs(path):
        while True:
            pass

    monkeypatch.setattr(fuzz, "make_files", lambda folder: _one_file(folder))
    for read, fault in ((broken, "KeyError"), (hangs, "more than")):
        monkeypatch.setattr(fuzz, "READERS", ((read, ("x.txt",)),))
        monkeypatch.setattr(fuzz, "LIMIT", 0.2)
        with fuzz.prepared() as fuzzer:
            number = next(n for n in range(9) if fuzz.np.random.default_rng(n).random() < 0.5)
            assert fault in fuzzer.run(number).fault


def _one_file(folder):
    folder.mkdir()
    (folder / "x.txt").write_text("1 2 3\n")
