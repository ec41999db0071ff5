"""Single updates of the pretraining task, as fairseq's trainer makes them."""

import copy

import pytest
import torch
from fairseq import checkpoint_utils, tasks
from fairseq.optim import AMPOptimizer, build_optimizer
from omegaconf import OmegaConf

from bridle_fairseq.tasks.stages import report_codebooks


class Run:
    """A model, its optimizer and the task, driven as fairseq's trainer drives them."""

    def __init__(self, cfg):
        torch.manual_seed(0)
        self.task = tasks.setup_task(cfg.task)
        self.model = self.task.build_model(cfg.model)
        self.criterion = self.task.build_criterion(OmegaConf.create({"_name": "bridle"}))
        adamw = {
            "_name": "bridle_adamw",
            "adam_betas": [0.9, 0.95],
            "adam_eps": 1e-8,
            "weight_decay": 0.1,
            "lr": [1e-3],
        }
        self.optimizer = build_optimizer(OmegaConf.create(adamw), list(self.model.parameters()))
        self.task.load_dataset("train")
        self.updates = 0

    def batch(self, rows):
        dataset = self.task.dataset("train")
        return dataset.collater([dataset[row] for row in rows])

    def update(self, *batches, dummies=(), step=True):
        torch.manual_seed(self.updates)
        self.model.train()
        self.optimizer.zero_grad()
        for number, batch in enumerate(batches):
            ignore = number in dummies
            self.task.train_step(batch, self.model, self.criterion, self.optimizer, self.updates, ignore)
        if step:
            self.task.optimizer_step(self.optimizer, self.model, self.updates)
            self.updates += 1
            self.model.set_num_updates(self.updates)

    def state(self):
        return copy.deepcopy([self.model.state_dict(), self.optimizer.state_dict()])


@pytest.fixture
def run(configure):
    return Run(configure())


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


def test_updates_advance_through_the_stages(run, caplog):
    with caplog.at_level("INFO"):
        for _ in range(7):
            run.update(run.batch(range(4)))
    said = [record.message for record in caplog.records if record.message.startswith("stage ")]
    assert [text[: text.index(":")] for text in said] == [
        "stage 1 of 2 begins", "stage 1 ends", "stage 1 ends", "stage 2 of 2 begins", "stage 2 ends", "stage 2 ends"
    ]  # fmt: skip


def test_collapsed_level_is_a_warning(run, caplog):
    for _ in range(2):
        run.update(run.batch(range(4)))
    with torch.no_grad():
        run.model.quantizer.usage.zero_()[:, 0] = 1e9
    run.update(run.batch(range(4)))
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert sum("has collapsed" in text for text in warnings) == 0  # one of 8 codes is more than a tenth of them
    run.model.settings.codebook_size = 11
    report_codebooks(run.model)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert sum("has collapsed" in text for text in warnings) == 2


@pytest.mark.parametrize("update", [1, 4], ids=["encoder", "tokenizer"])
def test_dummy_batch_changes_nothing(configure, update):
    states = []
    for dummies in ((), (1,)):
        run = Run(configure())
        while run.updates < update:
            run.update(run.batch(range(4)))
        batches = [run.batch(range(4)), run.batch(range(4, 8))]
        run.update(*batches[: 1 + len(dummies)], dummies=dummies)
        states.append(run.state())
    assert equal(*states)


def test_dummy_batch_counts_as_zero(configure):
    run = Run(configure())
    run.update(run.batch(range(4)))
    run.model.train()
    for ignore in (False, True):
        loss, sample_size, log = run.task.train_step(
            run.batch(range(4)), run.model, run.criterion, run.optimizer, run.updates, ignore
        )
        assert (sample_size > 0) == (not ignore)
        assert (log["nsentences"], log["batches"], log["stage"]) == ((0, 0, 0) if ignore else (4, 1, 1))
        assert {key for key, value in log.items() if value} <= (set() if ignore else set(log))
        assert torch.is_tensor(log["loss_1"]) and log["masked"] == sample_size


@pytest.mark.parametrize("kind", ["encoder", "tokenizer"])
def test_validation_after_a_dummy_batch_counts_its_patches(configure, kind):
    run = Run(configure(model={"stages": [{"kind": kind, "updates": 9}]}))
    run.update(run.batch(range(4)))
    logs = []
    for dummies in ((), (0,)):
        run.update(run.batch(range(4, 8)), dummies=dummies, step=False)
        run.model.eval()
        logs.append(run.task.valid_step(run.batch(range(4)), run.model, run.criterion)[2])
    assert equal(*logs)


def test_ranks_mask_different_patches(configure, monkeypatch):
    losses = []
    for rank in (0, 1, 2, 1):
        run = Run(configure())
        batch = run.batch(range(4))
        run.update(batch, step=False)
        torch.manual_seed(0)
        run.model.train()
        steps = []
        with monkeypatch.context() as patch:
            patch.setattr("bridle_fairseq.utils.distributed.rank", lambda rank=rank: rank)
            for _ in range(2):
                _, _, log = run.task.train_step(batch, run.model, run.criterion, run.optimizer, 0)
                steps.append(log["loss"].item())
        assert steps[0] != steps[1]  # nor do micro-batches hide the same
        losses.append(steps)
    assert losses[1] == losses[3]
    assert len({first for first, _ in losses}) == 3


def test_amp_overflow_leaves_codebooks_unchanged(configure):
    run = Run(configure(model={"stages": [{"kind": "tokenizer", "updates": 9}]}))
    cfg = OmegaConf.create({"optimizer": {}, "common": {"fp16_init_scale": 4, "min_loss_scale": 1e-4}})
    run.optimizer = AMPOptimizer(cfg, run.optimizer.params, run.optimizer)
    run.optimizer._grad_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)  # fairseq's own is off without CUDA
    states = []
    for overflows in (False, True, False):
        run.model.train()
        run.optimizer.zero_grad()
        run.task.train_step(run.batch(range(4)), run.model, run.criterion, run.optimizer, run.updates)
        if overflows:
            next(p for p in run.optimizer.params if p.grad is not None).grad.fill_(float("inf"))
        run.optimizer.clip_grad_norm(0.0)
        run.task.optimizer_step(run.optimizer, run.model, run.updates)
        run.updates += not overflows
        states.append(copy.deepcopy(run.model.state_dict()))
    assert equal(*states[:2])
    changed = [name for name in states[0] if not torch.equal(states[1][name], states[2][name])]
    assert {"quantizer.codebooks.codes", "latent_norm.mean"} <= set(changed)


def test_skipped_update_changes_no_state(configure):
    """As after an overflow under fp16: the same update is made again, with other data."""
    states = []
    for thrown_away in (False, True):
        run = Run(configure())
        while run.updates < 5:
            run.update(run.batch(range(4)))
        if thrown_away:
            run.update(run.batch(range(4, 8)), step=False)
        run.update(run.batch(range(8, 12)))
        states.append(run.state())
    assert equal(*states)


def test_best_validation_is_reset_at_a_new_stage(run):
    for update in range(4):
        checkpoint_utils.save_checkpoint.best = 0.5
        run.update(run.batch(range(4)))
        assert hasattr(checkpoint_utils.save_checkpoint, "best") == (update in (1, 2))


def test_too_many_skipped_clips_end_training(run, capsys):
    run.update(run.batch(range(4)))
    for row in range(4):
        run.task.media["train"].skips.add(row, "burnt")
    with pytest.raises(SystemExit) as ended:
        run.update(run.batch(range(4)))
    assert ended.value.code == 2 and "4 of 12 clips had to be skipped" in capsys.readouterr().err


def test_cached_codes_in_a_joint_stage_are_an_error(configure, said):
    run = Run(configure(model={"stages": [{"kind": "encoder", "updates": 1}, {"kind": "joint", "updates": 3}]}))
    run.task.cfg.codes = "codes"
    run.update(run.batch(range(4)))
    assert "task.codes in a joint stage" in said(run.update, run.batch(range(4)))
