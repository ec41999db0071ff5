"""Checksums of checkpoint files. The CRC-32 of each record is in the zip archive that torch.save writes."""

import io
import random

import pytest
import torch

from fairseq_compat.damage import damage

CONTENT = {"model": {"weight": torch.arange(30.0)}, "optimizer_history": [{"num_updates": 7}]}


def written(**options):
    buffer = io.BytesIO()
    torch.save(CONTENT, buffer, **options)
    return buffer.getvalue()


WHOLE = written()


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "checkpoint_last.pt"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "before torch 1.6"])
def test_whole_file_passes(file, options):
    assert damage(file(written(**options))) is None


DAMAGED = {
    "half": (WHOLE[: len(WHOLE) // 2], "its end is missing"),
    "without its last bytes": (WHOLE[:-30], "its end is missing"),
    "empty": (b"", "it is empty"),
    "zeros": (bytes(len(WHOLE)), "it does not begin as a checkpoint does"),
    "text": (b"hello", "it does not begin as a checkpoint does"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_torn_file_is_damaged(file, kind):
    content, reason = DAMAGED[kind]
    assert damage(file(content)) == reason


def test_folder_is_damaged(tmp_path):
    assert damage(tmp_path) == "it is a folder"


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        damage(tmp_path / "none.pt")


def test_flipped_bit_of_a_weight_is_named(file):
    content = bytearray(WHOLE)
    content[WHOLE.index(CONTENT["model"]["weight"].numpy().tobytes()) + 6] ^= 0x40
    assert damage(file(content)) == "the checksum of archive/data/0 is wrong"


def test_record_that_torch_would_skip_is_damage(file):
    """torch.load would give uninitialized memory."""
    content = bytearray(WHOLE)
    content[WHOLE.rindex(b"PK\x01\x02", 0, WHOLE.rindex(b"archive/data/0")) + 38] ^= 0x10
    assert damage(file(content)) == "its contents are damaged"


def test_type_that_is_not_allowed_is_no_damage(tmp_path):
    torch.save({"path": tmp_path}, tmp_path / "other.pt")
    assert damage(tmp_path / "other.pt") is None


def loads_unchanged(path):
    try:
        loaded = torch.load(path)
    except Exception:  # of any kind: a refusal that damage() did not announce makes the assertion fail
        return False
    return torch.equal(loaded["model"]["weight"], CONTENT["model"]["weight"]) and loaded.keys() == CONTENT.keys()


def test_any_flipped_bit_is_found_or_harmless(file):
    """Padding, dates and the like may change: torch.load then gives the same."""
    draw, found = random.Random(0), 0
    for position in range(len(WHOLE)):
        content = bytearray(WHOLE)
        content[position] ^= 1 << draw.randrange(8)
        path = file(content)
        noticed = damage(path) is not None
        found += noticed
        assert noticed or loads_unchanged(path), f"byte {position} of {len(WHOLE)}"
    assert found > 300  # records, names, offsets
