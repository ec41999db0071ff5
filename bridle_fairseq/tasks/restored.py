"""The state of a task in the checkpoint from which a run goes on; fairseq restores the model and leaves it alone."""

import os

import torch


def restored_state(cfg):
    """(task state, path) of the checkpoint from which a task's run goes on; ({}, None) where it begins.

    Args:
        cfg: the task's configuration, within that of the run.
    """
    root = cfg._get_root() if hasattr(cfg, "_get_root") else {}
    if "checkpoint" not in root:
        return {}, None
    path = root.checkpoint.restore_file
    if path == "checkpoint_last.pt":
        path = os.path.join(root.checkpoint.save_dir, path)
    if not os.path.isfile(path):
        return {}, None
    return torch.load(path, map_location="cpu", mmap=True).get("task_state") or {}, path
