"""Which checkpoint a run starts from if files are damaged."""

import os
from types import SimpleNamespace

import pytest
import torch

from fairseq_compat.for_errors import RunError
from fairseq_compat.for_resuming import check_restored_file


@pytest.fixture
def folder(tmp_path):
    """Checkpoints after 10, 20 and 30 updates; the best is that after 10, the last one is damaged."""
    for name, updates in {"_1_20": 20, "2": 30, "_best": 10}.items():
        state = {"optimizer_history": [{"num_updates": updates}], "weight": torch.arange(500.0) + updates}
        torch.save(state, tmp_path / f"checkpoint{name}.pt")
    (tmp_path / "checkpoint_last.pt").write_bytes((tmp_path / "checkpoint2.pt").read_bytes()[:-50])
    return tmp_path


def check(folder, **settings):
    defaults = {"restore_file": "checkpoint_last.pt", "checkpoint_suffix": "", "no_save": False}
    defaults |= {"continue_once": None, "finetune_from_model": None}
    check_restored_file(SimpleNamespace(save_dir=str(folder), **(defaults | settings)))


def updates(folder):
    return torch.load(folder / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def test_newest_whole_checkpoint_takes_the_place_of_a_damaged_one(folder, caplog):
    torn = (folder / "checkpoint_last.pt").read_bytes()
    check(folder)
    assert updates(folder) == 30
    assert (folder / "checkpoint_last.pt.damaged").read_bytes() == torn and (folder / "checkpoint2.pt").exists()
    (record,) = caplog.records
    assert record.message == (
        f"damaged: {folder}/checkpoint_last.pt (its end is missing; kept as checkpoint_last.pt.damaged). The run "
        f"goes on from {folder}/checkpoint2.pt, the newest whole checkpoint, after 30 updates"
    )


def test_other_damaged_checkpoints_are_renamed_so_that_pruning_does_not_count_them(folder):
    flip(folder / "checkpoint2.pt")
    check(folder)
    assert updates(folder) == 20
    assert not (folder / "checkpoint2.pt").exists() and (folder / "checkpoint2.pt.damaged").exists()


def test_a_folder_in_place_of_the_last_checkpoint_is_renamed(folder):
    (folder / "checkpoint_last.pt").unlink()
    (folder / "checkpoint_last.pt").mkdir()
    check(folder)
    assert updates(folder) == 30 and (folder / "checkpoint_last.pt.damaged").is_dir()


def test_second_damage_keeps_the_first_damaged_file(folder):
    check(folder)
    flip(folder / "checkpoint_last.pt")  # a link of checkpoint2.pt
    check(folder)
    assert updates(folder) == 20
    assert {"checkpoint_last.pt.damaged", "checkpoint_last.pt.damaged1"} < set(os.listdir(folder))


def test_file_system_without_links(folder, monkeypatch):
    def link(source, target):
        raise PermissionError

    monkeypatch.setattr(os, "link", link)
    check(folder)
    assert updates(folder) == 30


def test_without_a_whole_one_the_run_ends(folder):
    for path in folder.glob("checkpoint*[!t].pt"):
        path.write_bytes(b"")
    (folder / "checkpoint_best.pt").unlink()
    names = sorted(os.listdir(folder))
    with pytest.raises(RunError, match=r"no whole checkpoint in .*checkpoint_last.pt \(its end is missing\); .*empty"):
        check(folder)
    assert sorted(os.listdir(folder)) == names


def test_whole_last_checkpoint_stays(folder, caplog):
    (folder / "checkpoint_last.pt").write_bytes((folder / "checkpoint_1_20.pt").read_bytes())
    check(folder)
    assert updates(folder) == 20 and not caplog.records


def test_a_run_that_does_not_save_changes_nothing(folder):
    with pytest.raises(RunError, match=r"expected checkpoint.restore_file=.*checkpoint2.pt, the newest whole"):
        check(folder, no_save=True)
    assert not (folder / "checkpoint_last.pt.damaged").exists()


def test_start_without_the_last_checkpoint_is_not_silent(folder, caplog):
    (folder / "checkpoint_last.pt").unlink()
    check(folder)
    assert f"checkpoint.restore_file={folder}/checkpoint2.pt goes on from that" in caplog.text


@pytest.mark.parametrize("setting", ["restore_file", "finetune_from_model", "continue_once"])
def test_damaged_file_that_the_user_named_is_not_replaced(folder, setting):
    named = (folder / "checkpoint_last.pt").rename(folder / "named.pt")
    with pytest.raises(RunError, match=f"checkpoint.{setting} is {named}: its end is missing; expected a whole"):
        check(folder, **{setting: str(named)})


def test_missing_model_to_fine_tune_is_an_error(tmp_path):
    for name in ("none.pt", "no/such/folder"):
        with pytest.raises(RunError, match=f"finetune_from_model is {name}, which does not exist"):
            check(tmp_path, finetune_from_model=name)
    for elsewhere in (
        tmp_path,
        "owner/name",
        "owner/name@v1",
        "bridle-small-audio",
    ):  # of an export, which the task reads
        check(tmp_path, finetune_from_model=str(elsewhere))


def test_new_run_starts(tmp_path, caplog):
    check(tmp_path)
    assert not caplog.records
