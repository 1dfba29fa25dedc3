"""Damage to files: text, bytes, arrays of npz files and data sets of HDF5 files.

Each mutation takes a random generator, and returns what it did in words.
"""

import io
import re
import shutil
import zipfile

import h5py
import numpy as np

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?![\w.])")
WORD = re.compile(r"[A-Za-z]\w*")
VALUES = ("nan", "inf", "-inf", "1e300", "-1", "0", "99999999", "1e-300", "-7.5", "x", "", "1e5")
ARRAYS = (".npz",)
HDF5 = (".h5",)
BINARY = (*ARRAYS, *HDF5, ".dcd", ".rows")


def damage(path, others, rng) -> str:
    """Change a file in one way; `others` are files whose content may replace it."""
    suffix = path.suffix
    if rng.random() < 0.07:
        other = others[rng.integers(len(others))]
        if other.read_bytes() != path.read_bytes():
            shutil.copyfile(other, path)
            return f"other file ({other.name})"
    if suffix in ARRAYS and rng.random() < 0.8:
        return _npz(path, rng)
    if suffix in HDF5 and rng.random() < 0.7:
        return _hdf5(path, rng)
    raw = path.read_bytes()
    if suffix in BINARY or rng.random() < 0.3:
        what, raw = _bytes(raw, rng)
    else:
        what, text = mutated_text(raw.decode("utf-8", "replace"), rng)
        raw = text.encode()
    path.write_bytes(raw)
    return what


def _bytes(raw: bytes, rng) -> tuple[str, bytes]:
    kind = rng.integers(6)
    place = int(rng.integers(max(len(raw), 1)))
    if kind == 0:
        return f"truncated to {place} of {len(raw)} bytes", raw[:place]
    if kind == 1:
        changed = bytearray(raw)
        for i in rng.integers(len(raw), size=int(rng.integers(1, 9))) if raw else ():
            changed[i] ^= 1 << int(rng.integers(8))
        return "flipped bits", bytes(changed)
    if kind == 2:
        return "empty", b""
    if kind == 3:
        return f"random bytes at {place}", raw[:place] + rng.bytes(20) + raw[place:]
    if kind == 4:
        return f"zeros at {place}", raw[:place] + bytes(64) + raw[place + 64 :]
    return "twice", raw + raw


def mutated_text(text: str, rng) -> tuple[str, str]:
    """A text with one change, and the change in words."""
    lines = text.splitlines(keepends=True)
    kind = rng.integers(10)
    i, j = (int(k) for k in rng.integers(max(len(lines), 1), size=2))
    if kind == 0 and lines:
        return f"line {i} deleted", "".join(lines[:i] + lines[i + 1 :])
    if kind == 1 and lines:
        return f"line {i} twice", "".join(lines[: i + 1] + lines[i:])
    if kind == 2 and lines:
        lines[i], lines[j] = lines[j], lines[i]
        return f"lines {i} and {j} swapped", "".join(lines)
    if kind == 3 and lines:
        return f"lines from {i} on deleted", "".join(lines[:i])
    if kind == 4:
        return _replaced(text, WORD, ("H", "Xx", "", "C", "0", "é", "x" * 300), rng)
    if kind == 5:
        return "byte-order mark", "\ufeff" + text
    if kind == 6:
        return "lines of Windows", text.replace("\n", "\r\n")
    return _replaced(text, NUMBER, VALUES, rng)


def _replaced(text: str, pattern, values, rng) -> tuple[str, str]:
    found = list(pattern.finditer(text))
    if not found:
        return "empty", ""
    # Counts, which other numbers depend on, are at the beginning of most files.
    place = rng.integers(len(found)) if rng.random() < 0.6 else rng.integers(min(len(found), 6))
    match, value = found[place], values[rng.integers(len(values))]
    words = f"{match[0]!r} at {match.start()} replaced by {value!r}"
    return words[:100], text[: match.start()] + value + text[match.end() :]


def _npz(path, rng) -> str:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: _array(file, key) for key in file.files}
    key = list(arrays)[rng.integers(len(arrays))]
    kind = rng.integers(8)
    if kind == 0:
        del arrays[key]
        what = f"{key} deleted"
    elif kind == 1:
        other = list(arrays)[rng.integers(len(arrays))]
        arrays[key], arrays[other] = arrays[other], arrays[key]
        what = f"{key} and {other} exchanged"
    elif kind == 2:
        _twice(path, key)
        return f"{key} twice"
    else:
        what, arrays[key] = mutated_array(arrays[key], rng)
        what = f"{key}: {what}"
    np.savez(path, **arrays)
    return what


def _array(file, key: str):
    """An array of a file, or an empty one in place of pickled objects."""
    try:
        return file[key]
    except ValueError:
        return np.zeros(0)


def _twice(path, key: str) -> None:
    """Add a second array under the name `key`."""
    import warnings

    buffer = io.BytesIO()
    np.save(buffer, np.array([1.0, np.nan]))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(f"{key}.npy", buffer.getvalue())


def mutated_array(array, rng):
    """What was done, and an array with another value, shape or dtype."""
    if array.dtype.kind in "US" and array.size == 1:
        what, text = mutated_text(str(array.reshape(()).item()), rng)
        return what, np.array(text)
    kind = rng.integers(4)
    if kind == 0:
        dtype = ("f4", "i8", "?", "U9", "c16", "u1", "S4", "O")[rng.integers(8)]
        try:
            if dtype == "O":  # written as a pickle, which must not be read
                return "dtype O", np.array([{"x": 1}], object)
            with np.errstate(all="ignore"):
                return f"dtype {dtype}", array.astype(dtype)
        except (TypeError, ValueError):
            return "dtype U", np.array(["text"])
    if kind == 1:
        shapes = {
            "flat": lambda: array.reshape(-1)[:-1],
            "axis": lambda: array[None],
            "scalar": lambda: array.reshape(-1)[:1].reshape(()) if array.size else array,
            "none": lambda: array[:0] if array.ndim else array.reshape(1),
            "shorter": lambda: array[:-1] if array.ndim else array.reshape(1),
            "longer": lambda: np.concatenate([array, array[-1:]]) if array.ndim else array[None],
            "transposed": lambda: (
                array.T
                if array.ndim > 1
                else array[:, None, None]
                if array.ndim
                else array[None, None]
            ),
            "last": lambda: array[..., :-1] if array.ndim else array[None],
        }
        name = list(shapes)[rng.integers(len(shapes))]
        return f"shape {name}", shapes[name]()
    if array.dtype.kind not in "fiu" or array.size == 0:
        return "dtype U", np.array(["text"])
    changed = array.copy()
    flat = changed.reshape(-1)
    one = slice(None) if rng.random() < 0.3 else int(rng.integers(flat.size))
    if array.dtype.kind == "f":
        value = (np.nan, np.inf, 1e300, -1e300, 0.0, -1.0, 1e-300, 1e6)[rng.integers(8)]
        with np.errstate(over="ignore"):
            flat[one] = value
    else:
        value = (0, 1, 127, -1, -(2**31), 2**31 - 1, 999)[rng.integers(7)]
        flat[one] = np.asarray(value).astype(array.dtype)
    return f"{'all values' if one == slice(None) else f'value {one}'} {value}", changed


def _hdf5(path, rng) -> str:
    with h5py.File(path, "r+") as file:
        names = []
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
        name = names[rng.integers(len(names))]
        if rng.random() < 0.2:
            del file[name]
            return f"{name} deleted"
        if rng.random() < 0.2 and file.attrs:
            key = list(file.attrs)[rng.integers(len(file.attrs))]
            del file.attrs[key]
            return f"attribute {key} deleted"
        values = file[name][()]
        attributes = dict(file[name].attrs)
        what, values = mutated_array(np.asarray(values), rng)
        if values.dtype.kind in "UO":
            values = np.array(["text"], "S4")
        del file[name]
        made = file.create_dataset(name, data=values)
        made.attrs.update(attributes)
        return f"{name}: {what}"
