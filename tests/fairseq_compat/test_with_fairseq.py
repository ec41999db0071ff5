"""Patches whose tests import all of fairseq.

The import is slow, so all cases share two interpreters: one with every patch, one without the patches tested here.
"""

import numpy as np
import pytest

CASES = """
import argparse, io, os, tempfile, zipfile
import numpy as np, torch
import fairseq.checkpoint_utils, fairseq.data.data_utils, fairseq.distributed.utils
from fairseq.data import Dictionary, TokenBlockDataset
from fairseq.logging.meters import AverageMeter
from fairseq.modules.dynamic_crf_layer import DynamicCRF
from fairseq.optim import AMPOptimizer
from omegaconf import OmegaConf

FOLDER = tempfile.mkdtemp()

def span_mask():
    np.random.seed(0)
    mask = fairseq.data.data_utils.compute_mask_indices((2, 50), None, 0.5, 4, no_overlap=True)
    return [str(mask.dtype), bool(mask.any())]

def conditional_random_field():
    crf = DynamicCRF(num_embedding=6, low_rank=2, beam_size=3)
    loss = crf(torch.zeros(2, 4, 6), torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool))
    return list(loss.shape)

def lines_of_text():
    lines = [torch.tensor([4, 5, 2]), torch.tensor([6, 2])]
    blocks = TokenBlockDataset(lines, np.array([3, 2]), None, pad=1, eos=2, break_mode="eos")
    return [block.tolist() for block in blocks]

def save(name, **more):
    meter = AverageMeter()
    meter.update(np.float64(3.0))
    state = {
        "args": None, "cfg": {"task": {"data": "d"}}, "model": {"w": torch.ones(2)},
        "extra_state": {"train_iterator": {"epoch": 1}}, "optimizer_history": [{"num_updates": 1, "best_loss": 1.0}],
        "task_state": {"dictionary": Dictionary()}, "options": argparse.Namespace(arch="x"), "meter": meter,
        "best": np.float64(0.5), "rows": np.arange(3), **more,
    }
    path = os.path.join(FOLDER, name)
    torch.save(state, path)
    return path

def load(path):
    state = fairseq.checkpoint_utils.load_checkpoint_to_cpu(path)
    return [state["options"].arch, state["cfg"].task.data, len(state["task_state"]["dictionary"]),
            float(state["meter"].avg), float(state["best"]), state["rows"].tolist()]

def checkpoint():
    return load(save("plain.pt"))

def checkpoint_with_configuration():
    cfg = OmegaConf.create({"task": {"data": "d", "rates": [1.5, 2], "flag": True, "nothing": None}})
    return load(save("cfg.pt", cfg=cfg))

def checkpoint_of_other_numpy():
    path, other = save("plain2.pt"), os.path.join(FOLDER, "other.pt")
    current, other_name = b"numpy._core.multiarray", b"numpy.core.multiarray"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                old, new = (current, other_name) if current in content else (other_name, current)
                assert old in content
                content = content.replace(old, new)
            target.writestr(name, content)
    return load(other)

class Evil:
    def __reduce__(self):
        return os.mkdir, (os.path.join(FOLDER, "evil"),)

def checkpoint_that_runs_code():
    try:
        load(save("evil.pt", extra=Evil()))
    finally:
        assert not os.path.exists(os.path.join(FOLDER, "evil"))

def gathered_lists():
    torch.distributed.init_process_group("gloo", init_method="file://" + FOLDER + "/rendezvous", rank=0, world_size=1)
    gather = fairseq.distributed.utils.all_gather_list
    group = torch.distributed.group.WORLD
    try:
        return [gather({"loss": 1.5}, group=group), gather(list(range(9000)), group=group, max_size=60000)[0][-1],
                gather("small again", group=group)]
    finally:
        torch.distributed.destroy_process_group()

def gradients_under_amp():
    cfg = OmegaConf.create({"optimizer": {"_name": "adam", "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-8,
                            "weight_decay": 0.0, "lr": [1e-3], "use_old_adam": True, "fp16_adam_stats": False,
                            "tpu": False},
                            "common": {"fp16_init_scale": 1024, "min_loss_scale": 1e-4}})
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = AMPOptimizer.build_optimizer(cfg, [parameter])
    optimizer._grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # fairseq's scaler is disabled without CUDA
    optimizer.backward((parameter * torch.tensor([0.5, 0.25])).sum())
    norm = optimizer.clip_grad_norm(0.0)
    optimizer.step()
    if parameter.grad.tolist() != [0.5, 0.25]:
        raise ValueError(f"gradients {parameter.grad.tolist()} after a norm of {norm:.3f}")
    return bool(parameter.abs().min() > 0)

outcomes = {}
for case in (span_mask, conditional_random_field, lines_of_text, checkpoint, checkpoint_with_configuration,
             checkpoint_of_other_numpy, checkpoint_that_runs_code, gathered_lists, gradients_under_amp):
    try:
        outcomes[case.__name__] = case()
    except Exception as error:
        outcomes[case.__name__] = type(error).__name__ + ": " + str(error)
report(outcomes)
"""

CHECKPOINT = ["x", "d", 4, 3.0, 0.5, [0, 1, 2]]
EXPECTED = {
    "span_mask": ["bool", True],
    "conditional_random_field": [2],
    "lines_of_text": [[4, 5, 2], [6, 2]],
    "checkpoint": CHECKPOINT,
    "checkpoint_with_configuration": CHECKPOINT,
    "checkpoint_of_other_numpy": CHECKPOINT,
    "gathered_lists": [[{"loss": 1.5}], 8999, ["small again"]],
    "gradients_under_amp": True,
}
ERRORS = {
    "span_mask": "AttributeError: module 'numpy' has no attribute 'int'",
    "conditional_random_field": "AttributeError: module 'numpy' has no attribute 'float'",
    "lines_of_text": "AttributeError: module 'numpy' has no attribute 'compat'",
    "checkpoint": "so it is not loaded",
    "checkpoint_with_configuration": "so it is not loaded",
    "checkpoint_of_other_numpy": "so it is not loaded",
    "gathered_lists": "",  # the message depends on the build of torch
    "gradients_under_amp": "gradients [0.00048828125, 0.000244140625] after a norm of 0.559",
}


@pytest.fixture(scope="module")
def patched(run_python):
    outcome, stderr = run_python(CASES)
    assert outcome, stderr
    return outcome


@pytest.fixture(scope="module")
def unpatched(run_python):
    names = ["restore_builtin_aliases", "allow_checkpoint_types", "gather_lists_without_cuda", "unscale_gradients_once"]
    outcome, stderr = run_python(CASES, without=names)
    assert outcome, stderr
    return outcome


@pytest.mark.parametrize("case", EXPECTED)
def test_works_with_patch(patched, case):
    assert patched[case] == EXPECTED[case]


@pytest.mark.parametrize("case", ERRORS)
def test_fails_without_patch(unpatched, case):
    if case == "lines_of_text" and hasattr(np, "compat"):
        pytest.skip("this NumPy has np.compat")
    assert isinstance(unpatched[case], str)
    assert ERRORS[case] in unpatched[case]


def test_checkpoint_that_runs_code_is_rejected(patched):
    assert "it could run code" in patched["checkpoint_that_runs_code"]


def test_console_scripts_print_help(run_python):
    code = """
    import contextlib, io
    from importlib.metadata import distribution
    answers = {}
    scripts = [e for e in distribution("fairseq").entry_points if e.group == "console_scripts"]
    for script in sorted(scripts, key=lambda e: "hydra" in e.name):
        function, sys.argv = script.load(), [script.name, "--help"]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                function()
                code = 0
            except SystemExit as end:
                code = end.code or 0
        answers[script.name] = [code, "powered by Hydra" in printed.getvalue() or "usage:" in printed.getvalue()]
    report(answers)
    """
    answers, stderr = run_python(code)
    assert answers, stderr
    assert "fairseq-hydra-train" in answers and "fairseq-validate" in answers
    assert {name: answer for name, answer in answers.items() if answer != [0, True]} == {}


READING_AHEAD = """
import atexit, os, sys, threading

def report_threads():
    report(sum(type(thread).__name__ == "BackgroundConsumer" for thread in threading.enumerate()))
    if {leave}:
        sys.stdout.flush()
        os._exit(0)

atexit.register(report_threads)  # registered first, runs last

import torch
from fairseq.data.iterators import BufferedIterator

class Batches:
    def __iter__(self):
        while True:
            for _ in range(20):
                batch = torch.nn.functional.pad(torch.ones(300, 300), (1, 1)).to(torch.uint8)
            yield batch

    def __len__(self):
        return 10**6

batches = BufferedIterator({queue_size}, Batches())
assert [next(batches).shape[1] for _ in range(3)] == [302] * 3
"""


@pytest.mark.parametrize("queue_size", [1, 10**6], ids=["queue full", "reading"])
def test_reader_thread_is_joined_at_exit(run_python, queue_size):
    assert run_python(READING_AHEAD.format(queue_size=queue_size, leave=False)) == (0, "")


def test_reader_thread_survives_exit_without_patch(run_python):
    code = READING_AHEAD.format(queue_size=10**6, leave=True)  # leave early: the process might abort otherwise
    assert run_python(code, without=["join_reader_threads_at_exit"]) == (1, "")
