"""fairseq's memory-mapped indexed dataset without fairseq: same bytes, same values."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from bridle_fairseq.data.artifacts.indexed import IndexedItems, write_index
from bridle_fairseq.utils.errors import InputError

LENGTHS = [5, 0, 1, 700, 0]
LIMITS = {np.uint16: (0, 65536), np.int32: (-(2**31), 2**31)}


def items(dtype):
    random = np.random.default_rng(0)
    return [random.integers(*LIMITS[dtype], length) for length in LENGTHS]


def write(prefix, dtype):
    """Write both files without fairseq."""
    with open(f"{prefix}.bin", "wb") as file:
        file.writelines(item.astype(dtype).tobytes() for item in items(dtype))
    write_index(str(prefix), LENGTHS, dtype)


@pytest.mark.parametrize("dtype", LIMITS)
def test_same_bytes_as_fairseq(tmp_path, dtype):
    indexed_dataset = pytest.importorskip("fairseq.data.indexed_dataset")
    builder = indexed_dataset.MMapIndexedDatasetBuilder(f"{tmp_path}/theirs.bin", dtype=dtype)
    for item in items(dtype):
        builder.add_item(torch.from_numpy(item))
    builder.finalize(f"{tmp_path}/theirs.idx")
    write(tmp_path / "ours", dtype)
    for ending in ("bin", "idx"):
        assert (tmp_path / f"ours.{ending}").read_bytes() == (tmp_path / f"theirs.{ending}").read_bytes()


@pytest.mark.parametrize("dtype", LIMITS)
def test_same_values_as_fairseq(tmp_path, dtype):
    indexed_dataset = pytest.importorskip("fairseq.data.indexed_dataset")
    write(tmp_path / "a", dtype)
    ours, theirs = IndexedItems(f"{tmp_path}/a", dtype), indexed_dataset.MMapIndexedDataset(f"{tmp_path}/a")
    assert len(ours) == len(theirs) == len(LENGTHS) and ours.sizes.tolist() == theirs.sizes.tolist() == LENGTHS
    for number, item in enumerate(items(dtype)):
        assert ours[number].dtype == np.int64 and ours[number].tolist() == item.tolist()
        assert torch.equal(torch.from_numpy(ours[number]), theirs[number])


def test_pickled_by_path(tmp_path):
    write(tmp_path / "a", np.uint16)
    data = pickle.dumps(IndexedItems(f"{tmp_path}/a", np.uint16))
    assert len(data) < 500
    assert [item.tolist() for item in pickle.loads(data)] == [item.tolist() for item in items(np.uint16)]


def test_other_type_is_refused(tmp_path):
    write(tmp_path / "a", np.uint16)
    with pytest.raises(InputError, match=r"a\.idx: .* expected fairseq's memory-mapped format with int32"):
        IndexedItems(f"{tmp_path}/a", np.int32)


def test_codes_and_units_do_not_import_fairseq():
    modules = "bridle_fairseq.data.artifacts.codes, bridle_fairseq.units.files"
    code = f"import sys, {modules}; sys.exit('fairseq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("address", [-1, 2, 2**40, 2**62, -(2**62)])
def test_addresses_outside_of_the_file_are_refused(tmp_path, address):
    write(tmp_path / "a", np.uint16)
    index = bytearray((tmp_path / "a.idx").read_bytes())
    index[-8:] = np.int64(address).tobytes()
    (tmp_path / "a.idx").write_bytes(index)
    with pytest.raises(InputError, match=rf"a\.idx, item 5: 0 values from byte {address}; expected"):
        IndexedItems(f"{tmp_path}/a", np.uint16)


def test_negative_sizes_that_add_up_are_refused(tmp_path):
    write(tmp_path / "a", np.uint16)
    write_index(f"{tmp_path}/a", [-700, 5, 1, 1400, 0], np.uint16)
    with pytest.raises(InputError, match=r"a\.idx, item 1: -700 values"):
        IndexedItems(f"{tmp_path}/a", np.uint16)
