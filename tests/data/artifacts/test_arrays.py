"""Arrays of a known type and shape: nothing else is mapped, and nothing is unpickled."""

import numpy as np
import pytest

from bridle_fairseq.data.artifacts.arrays import open_array
from bridle_fairseq.utils.errors import InputError


class Payload:
    def __reduce__(self):
        return exec, ("raise AssertionError('a pickle was executed')",)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (5,)])
def test_values_of_the_file(tmp_path, shape) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "a.npy", values)
    array = open_array(str(tmp_path / "a.npy"), "these features", "float32", shape)
    assert array.shape == shape and array.dtype == np.float32 and np.array_equal(array, values)
    assert not len(values) or not array.flags.writeable


VALUES = np.ones((3, 4), np.float32)
BAD = {
    "another type": VALUES.astype(np.float16),
    "another byte order": VALUES.astype(">f4"),
    "another shape": VALUES.T,
    "by columns": np.asfortranarray(VALUES),
    "objects": np.array([[Payload()] * 4] * 3, dtype=object),
}


@pytest.mark.parametrize("name", BAD)
def test_other_arrays_are_refused(tmp_path, name) -> None:
    np.save(tmp_path / "a.npy", BAD[name], allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy: .*; expected float32 3x4, as its json says"):
        open_array(str(tmp_path / "a.npy"), "these features", "float32", (3, 4))


def test_damaged_files_are_refused(tmp_path) -> None:
    np.save(tmp_path / "good.npy", VALUES)
    data, path = (tmp_path / "good.npy").read_bytes(), tmp_path / "a.npy"
    damage = [data[:-4], data + b"x", data[:40], b"", b"PK\3\4", data.replace(b"{'descr'", b"((((((((")]
    damage += [data.replace(b"(3, 4)", b"(-3,4)"), data[:6] + b"\7" + data[7:]]
    for content in damage:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npy: "):
            open_array(str(path), "these features", "float32", (3, 4))
    with pytest.raises(InputError, match=r"none\.npy: cannot read these features: No such file"):
        open_array(str(tmp_path / "none.npy"), "these features", "float32", (3, 4))
