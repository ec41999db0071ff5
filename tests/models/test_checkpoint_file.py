"""Files of strangers: only tensors and plain values are read, and not more than a file holds."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import fairseq.checkpoint_utils  # noqa: F401  # its types are then allow-listed, as in every command
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from bridle_fairseq.models.checkpoint_file import MAX_VALUES, read_state
from bridle_fairseq.utils.errors import InputError

PROTOCOL, STOP = b"\x80\x02", b"."


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def archive(path: Path, pickled: bytes, *more: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> str:
    """A checkpoint file with this pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in (("archive/data.pkl", pickled), ("archive/version", b"3\n"), *more):
            file.writestr(name, content)
    return str(path)


def saved(path: Path, **entries) -> str:
    torch.save({"model": {"w": torch.ones(2)}, **entries}, path)
    return str(path)


def test_weights_and_plain_values_are_read(tmp_path) -> None:
    weights = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(3).half())
    path = tmp_path / "good.pt"
    values = {"best": 0.5, "metrics": OrderedDict(valid=[(1, "loss", None)]), "meter": torch.tensor(2.5)}
    torch.save({"model": weights, "cfg": {"a": [1, True, "x", None]}, "extra_state": values, "more": {1, 2}}, path)
    with pytest.raises(InputError, match="refers to"):  # of a set
        read_state(str(path))
    torch.save({"model": weights, "cfg": {"a": [1, True, "x", None]}, "extra_state": values, "args": None}, path)
    state = read_state(str(path))
    assert state.keys() == {"model", "cfg", "extra_state"} and state["cfg"] == {"a": [1, True, "x", None]}
    assert state["extra_state"] == {"best": 0.5, "metrics": {"valid": [[1, "loss", None]]}, "meter": 2.5}
    assert all(torch.equal(state["model"][name], value) for name, value in weights.items())


CALLS = {
    "code": Call(os.mkdir, "made"),
    "evaluation": Call(eval, "1"),
    "bytearray": Call(bytearray, 10**12),
    "namespace": argparse.Namespace(arch="wav2vec2"),
    "configuration": OmegaConf.create({"a": "${env:HOME}"}),
    "list of a configuration": Call(list, OmegaConf.create(["${env:HOME}"])),
    "dtype": np.dtype("f8"),
    "number of NumPy": np.float64(1),
    "codec": b"bytes",
    "set": {1, 2},
    "parameter": torch.nn.Parameter(torch.ones(1)),
    "sparse tensor": torch.ones(2, 2).to_sparse(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("legacy", [False, True])
def test_other_names_in_a_pickle_are_refused_unread(tmp_path, monkeypatch, name, legacy) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "cfg": {"x": CALLS[name]}}, "x.pt", _use_new_zipfile_serialization=not legacy)
    monkeypatch.setattr(torch, "load", None)  # must not come so far
    with pytest.raises(InputError, match="no zip archive" if legacy else r"x\.pt: refers to '"):
        read_state("x.pt")
    assert os.listdir() == ["x.pt"]


def test_other_operations_of_pickles_are_refused(tmp_path) -> None:
    memo_of_4_gb = PROTOCOL + b"Nr" + struct.pack("<I", 2**31) + STOP
    for number, pickled in enumerate(
        (pickle.dumps({"model": {}}, protocol=4), pickle.dumps(OrderedDict(), protocol=4), b"", PROTOCOL, memo_of_4_gb)
    ):
        with pytest.raises(InputError, match="not a checkpoint"):
            read_state(archive(tmp_path / f"{number}.pt", pickled))


def test_archives_that_torch_would_not_write_are_refused(tmp_path, monkeypatch) -> None:
    pickled = pickle.dumps({"model": {}}, protocol=2)
    zeros = "archive/data/0", bytes(9999)
    assert read_state(archive(tmp_path / "good.pt", pickled, zeros)) == {"model": {}}
    monkeypatch.setattr(torch, "load", None)
    for name, sentence, file in (
        (
            "bomb",
            "compressed or overlaps",
            archive(tmp_path / "a.pt", pickled, zeros, compression=zipfile.ZIP_DEFLATED),
        ),
        ("case", "or twice", archive(tmp_path / "b.pt", pickled, ("archive/DATA.PKL", b"other"))),
        ("folders", "several folders", archive(tmp_path / "c.pt", pickled, ("other/data.pkl", b"other"))),
        ("script without code", "TorchScript", archive(tmp_path / "s.pt", pickled, ("archive/constants.pkl", b"x"))),
        ("script", "several folders", archive(tmp_path / "d.pt", pickled, ("code/x.py", b""))),
    ):
        with pytest.raises(InputError, match=sentence):
            read_state(file), name


def test_a_central_directory_cannot_claim_more_than_the_file(tmp_path) -> None:
    path = archive(tmp_path / "x.pt", pickle.dumps({"model": {}}, protocol=2), ("archive/data/0", b"0" * 64))
    content = bytearray(Path(path).read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    Path(path).write_bytes(content)
    with pytest.raises(InputError, match="compressed or overlaps"):
        read_state(path)


def forged(path: Path, old: bytes, new: bytes) -> str:
    """A checkpoint of a tensor of 700 values, with other bytes in its pickle."""
    buffer = io.BytesIO()
    torch.save({"model": {"w": torch.zeros(700)}}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert content.count(old) >= 1
                content = content[::-1].replace(old[::-1], new[::-1], 1)[::-1]
            target.writestr(name, content)
    return str(path)


def test_tensors_cannot_claim_more_than_the_file(tmp_path) -> None:
    size, stride = b"M\xbc\x02\x85", b"K\x01\x85"  # (700,) and (1,)
    huge = b"J" + struct.pack("<i", 2**31 - 1) + b"\x85"
    for name, old, new in (("expanded", stride, b"K\x00\x85"), ("larger", size, huge), ("far apart", stride, huge)):
        path = forged(tmp_path / f"{name}.pt", old, new)
        if name == "expanded":  # its size stays, so that it is harmless
            assert read_state(path)["model"]["w"].stride() == (0,)
        else:
            with pytest.raises(InputError, match="claims 2147483647 values|not a checkpoint"):
                read_state(path)
    huge_and_flat = forged(tmp_path / "flat.pt", size + b"q\n" + stride, huge + b"q\n" + b"K\x00\x85")
    with pytest.raises(InputError, match="'w' claims 2147483647 values; expected weights no larger than the file"):
        read_state(huge_and_flat)


def test_values_that_refer_to_one_another_are_not_followed_for_ever(tmp_path) -> None:
    twice: list = []
    for _ in range(MAX_VALUES.bit_length()):
        twice = [twice, twice]
    endless: dict = {}
    endless["again"] = endless
    with pytest.raises(InputError, match="'cfg' are too many or nested too deep"):
        read_state(saved(tmp_path / "twice.pt", cfg=twice))
    with pytest.raises(InputError, match="'cfg' are too many or nested too deep"):
        read_state(saved(tmp_path / "endless.pt", cfg=endless))


def test_values_of_other_types_are_refused(tmp_path) -> None:
    for name, entry in (("tensor", torch.ones(3)), ("key", {(1, 2): 3}), ("number", 1 << 70)):
        with pytest.raises(InputError, match=rf"{name}\.pt: 'cfg' holds a value of type"):
            read_state(saved(tmp_path / f"{name}.pt", cfg=entry))


def test_attributes_of_a_state_dict_hide_nothing(tmp_path) -> None:
    class Weights:
        def __reduce__(self):  # its attributes items and keys, when called, are empty
            return OrderedDict, (), {"items": OrderedDict, "keys": OrderedDict}, None, iter([("w", 3)])

    torch.save({"model": Weights()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="'w' is no weight; expected dense tensors by name"):
        read_state(str(tmp_path / "x.pt"))


def test_a_flipped_bit_is_noticed(tmp_path) -> None:
    """torch reads a weight with a flipped bit; the archive's checksums tell."""
    path = tmp_path / "flipped.pt"
    torch.save({"model": {"w": torch.arange(4096.0)}}, path)
    content = bytearray(path.read_bytes())
    at = content.index(torch.arange(7.0, 9.0).numpy().tobytes())
    content[at + 2] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["model"]["w"], torch.arange(4096.0))
    with pytest.raises(InputError, match=r"flipped\.pt: damaged, the checksum of flipped/data/0 is wrong"):
        read_state(str(path))
