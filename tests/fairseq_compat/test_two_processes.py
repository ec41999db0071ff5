"""Two fairseq ranks over gloo on a CPU: broadcast of a checkpoint, and shutdown."""

from concurrent.futures import ThreadPoolExecutor

RANK = """
import argparse
import numpy as np, torch
import fairseq.distributed.utils as distributed
from fairseq.data import Dictionary
from fairseq.logging.meters import AverageMeter
from omegaconf import OmegaConf

rank = {rank}
torch.distributed.init_process_group("gloo", init_method="file://{folder}/rendezvous", rank=rank, world_size=2)
state = None
if rank == 0:
    cfg = OmegaConf.create({{"task": {{"data": "d", "rates": [1.5, 2], "nothing": None}}}})
    state = {{
        "cfg": cfg, "args": argparse.Namespace(arch="x"), "best": np.float64(0.5), "meter": AverageMeter(),
        "task_state": {{"dictionary": Dictionary()}}, "model": {{"w": torch.arange(3.0), "h": torch.ones(2).half()}},
    }}
state = distributed.broadcast_object(state, src_rank=0, group=torch.distributed.group.WORLD)
gathered = distributed.all_gather_list([rank] * (rank + 1), group=torch.distributed.group.WORLD)
torch.distributed.barrier()
torch.distributed.destroy_process_group()  # gloo's threads must not outlive the interpreter
report([state["cfg"].task.rates[0], state["args"].arch, state["model"]["w"].tolist(), str(state["model"]["h"].dtype),
        len(state["task_state"]["dictionary"]), float(state["best"]), gathered])
"""


def run_two(run_python, folder, without=()):
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_python, RANK.format(rank=rank, folder=folder), without) for rank in range(2)]
        return [run.result() for run in runs]


def test_checkpoint_is_broadcast(run_python, tmp_path):
    for outcome, stderr in run_two(run_python, tmp_path):
        assert outcome == [1.5, "x", [0.0, 1.0, 2.0], "torch.float16", 4, 0.5, [[0], [1, 1]]], stderr


def test_checkpoint_is_not_broadcast_without_patch(run_python, tmp_path):
    (_, _), (outcome, stderr) = run_two(run_python, tmp_path, without=["allow_checkpoint_types"])
    assert outcome is None
    assert "UnpicklingError" in stderr


ONE_RANK = """
import torch
import fairseq.distributed.utils as distributed
from fairseq.dataclass.configs import FairseqConfig

cfg = FairseqConfig()
cfg.common.cpu = True
cfg.distributed_training.distributed_backend = "gloo"
cfg.distributed_training.distributed_init_method = "file://{folder}/rendezvous"
cfg.distributed_training.distributed_world_size = 1
cfg.distributed_training.distributed_rank = 0
cfg.distributed_training.distributed_no_spawn = True

def main(cfg):
    distributed.get_global_group()
    if {fails}:
        raise ValueError("while training")

try:
    distributed.call_main(cfg, main)
except ValueError:
    pass
report([torch.distributed.is_initialized(), hasattr(distributed.get_global_group, "_global_group")])
"""


def test_distributed_run_closes_its_groups(run_python, tmp_path):
    outcome, stderr = run_python(ONE_RANK.format(folder=tmp_path, fails=False))
    assert outcome == [False, False], stderr


def test_groups_stay_open_without_patch(run_python, tmp_path):
    outcome, stderr = run_python(ONE_RANK.format(folder=tmp_path, fails=False), ["close_process_groups"])
    assert outcome == [True, True], stderr


def test_failed_run_leaves_groups_open(run_python, tmp_path):
    outcome, stderr = run_python(ONE_RANK.format(folder=tmp_path, fails=True))
    assert outcome == [True, True], stderr


PYTORCH_DDP = """
import torch
from fairseq.dataclass.configs import DistributedTrainingConfig
from fairseq.models.distributed_fairseq_model import DistributedFairseqModel

torch.distributed.init_process_group("gloo", init_method="file://{folder}/rendezvous", rank=0, world_size=1)
cfg = DistributedTrainingConfig(ddp_backend="pytorch_ddp", tpu=False, device_id=0, distributed_world_size=1)
group = torch.distributed.group.WORLD
model = DistributedFairseqModel(cfg, torch.nn.Linear(2, 2), group, torch.device("cpu"))
model(torch.ones(1, 2)).sum().backward()
torch.distributed.destroy_process_group()
report(model.module.module.weight.grad.tolist())
"""


def test_pytorch_ddp_wraps_cpu_model(run_python, tmp_path):
    outcome, stderr = run_python(PYTORCH_DDP.format(folder=tmp_path))
    assert outcome == [[1.0, 1.0], [1.0, 1.0]], stderr


def test_pytorch_ddp_fails_on_cpu_without_patch(run_python, tmp_path):
    outcome, stderr = run_python(PYTORCH_DDP.format(folder=tmp_path), ["wrap_cpu_models_for_ddp"])
    assert outcome is None
    assert "device_ids" in stderr
