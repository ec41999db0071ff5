"""The task by itself: what it completes and refuses, its data sets, and one update as the trainer makes it."""

import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fairseq import checkpoint_utils, tasks
from fairseq.optim import AMPOptimizer, build_optimizer
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.manifest import Manifest  # noqa: E402
from bridle_fairseq.errors import InputError  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402
from bridle_fairseq.tasks.bridle_pretraining import BridlePretrainingConfig  # noqa: E402

SMALL = {"num_mel_bins": 32, "patch_size": [8, 8], "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2}
SMALL |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "tokenizer_depth": 1, "estimator_depth": 1}
SMALL |= {"num_codebooks": 2, "codebook_size": 8, "codebook_dim": 4}
STAGES = [{"kind": "encoder", "updates": 3}, {"kind": "tokenizer", "updates": 4}]


@pytest.fixture
def data(tmp_path):
    """12 clips to train on and 3 to validate, of 0.3 to 0.9 s."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("valid", 3)):
        sizes = random.integers(5000, 15000, count).tolist()
        for number, size in enumerate(sizes):
            soundfile.write(tmp_path / f"{split}-{number}.wav", 0.3 * random.standard_normal(size), 16000)
        Manifest("", [f"{split}-{number}.wav" for number in range(count)], sizes).write(tmp_path / f"{split}.tsv")
    return tmp_path


@pytest.fixture
def configure(data, monkeypatch):
    """``configure(model={...}, common={...}, **task)`` -> a run's whole configuration."""
    monkeypatch.chdir(data)

    def make(model=None, common=None, optimization=None, checkpoint=None, **task):
        model = {**vars(BridleSettings(**SMALL)), "stages": STAGES, "_name": "bridle", **(model or {})}
        changes = {"_name": "bridle_pretraining", "data": str(data), "max_sample_size": 8000, "seed": 1, **task}
        task = {**vars(BridlePretrainingConfig()), **changes}
        common = {"fp16": False, "fp16_no_flatten_grads": False, **(common or {})}
        optimization = {"max_update": 0, **(optimization or {})}
        checkpoint = {"best_checkpoint_metric": "loss", "maximize_best_checkpoint_metric": False, **(checkpoint or {})}
        return OmegaConf.create(
            {"task": task, "model": model, "common": common, "optimization": optimization, "checkpoint": checkpoint}
        )

    return make


def test_max_update_defaults_to_the_stages_sum(configure):
    cfg = configure()
    tasks.setup_task(cfg.task)
    assert cfg.optimization.max_update == 7
    cfg = configure(optimization={"max_update": 5})
    tasks.setup_task(cfg.task)
    assert cfg.optimization.max_update == 5


def test_half_precision_leaves_parameters_apart(configure):
    cfg = configure(common={"fp16": True})
    tasks.setup_task(cfg.task)
    assert cfg.common.fp16_no_flatten_grads


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_half_precision_leaves_waveforms_as_they_are(configure, half):
    def batch(common):
        task = tasks.setup_task(configure(common=common).task)
        task.load_dataset("valid")
        data = task.dataset("valid")
        return data.collater([data[0], data[1]])["net_input"]["source"]

    def as_the_trainer_casts(source):  # fairseq.trainer.Trainer._fp_convert_sample
        return (
            source.to(torch.float16 if half == "fp16" else torch.bfloat16) if source.dtype == torch.float32 else source
        )

    expected = batch({})
    assert expected.dtype == torch.float32
    assert torch.equal(as_the_trainer_casts(batch({half: True})).float(), expected)


def test_clips_under_the_shortest_item_are_left_out_and_it_is_said(configure, caplog):
    task = tasks.setup_task(configure(min_sample_size=7000, max_sample_size=8000).task)
    task.load_dataset("train")
    data = task.dataset("train")
    long = np.flatnonzero(data.manifest.sizes >= 7000)
    assert sorted(data.ordered_indices()) == long.tolist() and 0 < len(long) < 12
    assert f"{12 - len(long)} of 12 clips have less than task.min_sample_size 7000 samples" in caplog.text


def test_what_another_rank_listed_since_the_run_began_counts(configure):
    Path("skipped.tsv").write_text("5\tof an earlier run\tburnt\n")
    early, late = (tasks.setup_task(configure().task) for _ in range(2))
    early.load_dataset("train")
    early.skips["train"].add(3, "burnt")
    late.load_dataset("train")
    with pytest.raises(InputError, match="1 of 12 clips"):
        late.skips["train"].check(0)


def said(capsys, action, *arguments):
    """The one sentence with which ``action`` ends the process."""
    with pytest.raises(SystemExit) as ended:
        action(*arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bridle_fairseq: error: ")
    return line


SETTINGS = {
    "mask everything": ({"mask_ratio": 1.0}, "model.mask_ratio is 1.0"),
    "mask nothing": ({"mask_ratio": 0.0}, "model.mask_ratio is 0.0"),
    "heads of the encoder": ({"encoder_heads": 3}, "model.encoder_heads is 3; expected a divisor"),
    "heads of the decoder": ({"decoder_heads": 3}, "model.decoder_heads is 3; expected a divisor"),
    "one code": ({"codebook_size": 1}, "model.codebook_size is 1"),
    "patches of one axis": ({"patch_size": [8]}, "model.patch_size is [8]"),
    "metric": ({"codebook_metric": "manhattan"}, "model.codebook_metric is 'manhattan'"),
    "modality": ({"modality": "smell"}, "model.modality is 'smell'"),
    "no rate": ({"sample_rate": 0}, "sample_rate is 0"),
    "no stage": ({"stages": []}, "model.stages is empty"),
    "a word for stages": ({"stages": "encoder"}, "model.stages is 'encoder'"),
    "a word for a stage": ({"stages": ["encoder"]}, "model.stages[0] is 'encoder'"),
    "unknown field": ({"stages": [{**STAGES[0], "speed": 1}]}, "model.stages[0] has the unknown field 'speed'"),
    "unknown kind": ({"stages": [STAGES[0], {"kind": "decoder", "updates": 3}]}, "model.stages[1] has kind 'decoder'"),
    "no updates": ({"stages": [{"kind": "encoder"}]}, "model.stages[0] has no 'updates'"),
    "updates in words": ({"stages": [{"kind": "encoder", "updates": "many"}]}, "a value that is no number"),
    "model for use only": ({"_name": "bridle_tokenizer"}, "bridle_tokenizer is taken from a checkpoint"),
}


@pytest.mark.parametrize("mistake", SETTINGS)
def test_impossible_settings(configure, capsys, mistake):
    model, words = SETTINGS[mistake]
    assert words in said(capsys, tasks.setup_task, configure(model=model).task)


MANIFESTS = {
    "no manifest": (None, "train.tsv: cannot read this manifest: No such file"),
    "empty": ("", "train.tsv: no rows"),
    "no rows": ("\n", "train.tsv: no rows"),
    "no root": ("train-0.wav\t5000\n", "line 1: 'train-0.wav\\t5000'; expected the root folder"),
    "spaces for tabs": ("\ntrain-0.wav 5000\n", "line 2: 1 column in"),
    "three columns": ("\ntrain-0.wav\t5000\tdog\n", "line 2: 3 columns in"),
    "no number": ("\ntrain-0.wav\tlong\n", "line 2: size 'long'; expected a whole number"),
    "nothing": ("\ntrain-0.wav\t0\n", "line 2: size '0'; expected a whole number"),
    "missing file": ("\ntrain-0.wav\t5000\ngone.wav\t5000\n", "line 3: no such file: "),
    "no sound": ("\ntrain.tsv\t5000\n", "none of 1 files tried can be read"),
    "too little": ("\ntrain-0.wav\t500\n", "patches, fewer than model.codebook_size 8"),
}


@pytest.mark.parametrize("mistake", MANIFESTS)
def test_impossible_manifests(configure, data, capsys, mistake):
    text, words = MANIFESTS[mistake]
    task = tasks.setup_task(configure().task)
    (data / "train.tsv").unlink() if text is None else (data / "train.tsv").write_text(text)
    assert words in said(capsys, task.load_dataset, "train")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"data": "nowhere"}, "nowhere"),
        ({"data": "???"}, "task.data is not set"),
        ({"codes": "nowhere"}, "nowhere/train.codes.json: cannot read"),
        ({"max_sample_size": 0}, "max_sample_size 0"),
    ],
)
def test_impossible_settings_of_the_data(configure, capsys, task, words):
    def load():
        tasks.setup_task(configure(**task).task).load_dataset("train")

    assert words in said(capsys, load)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"knn_data": "somewhere"}, "task.knn_data is set and task.knn_every is 0; expected so many updates"),
        ({"knn_every": 4}, "task.knn_every is set and task.knn_data is not; expected a folder"),
        ({"knn_every": -4, "knn_data": "somewhere"}, "task.knn_every is -4; expected a number of updates, or 0"),
    ],
)
def test_half_a_measurement_is_refused_where_a_run_begins(configure, capsys, task, words):
    cfg = configure(**task)
    made = tasks.setup_task(cfg.task)
    assert words in said(capsys, made.build_model, cfg.model)
    made.build_model(cfg.model, from_checkpoint=True)  # what such a run left can be used


def best(metric, maximize=True):
    return {"best_checkpoint_metric": metric, "maximize_best_checkpoint_metric": maximize}


@pytest.mark.parametrize(
    ("kinds", "checkpoint", "words"),
    [
        (
            ("encoder", "tokenizer"),
            best("acc_1"),
            "one of loss, used_1, used_2, perplexity_1, perplexity_2, knn_accuracy",
        ),
        (("tokenizer",), best("acc_1"), "is 'acc_1'; expected what is logged in all stages of the run, one of loss,"),
        (("encoder",), best("acc_3"), "loss_1, loss_2, acc_1, acc_2, knn_accuracy"),
        (("encoder",), best("acc_1", False), "maximize_best_checkpoint_metric is false with acc_1; expected true"),
        (("tokenizer",), best("loss"), "maximize_best_checkpoint_metric is true with loss; expected false"),
        (("encoder",), best("knn_accuracy"), "is knn_accuracy with task.knn_every 0; expected 1, so that every"),
    ],
)
def test_a_best_checkpoint_by_what_is_not_always_there_is_refused(configure, capsys, kinds, checkpoint, words):
    cfg = configure(model={"stages": [{"kind": kind, "updates": 3} for kind in kinds]}, checkpoint=checkpoint)
    made = tasks.setup_task(cfg.task)
    assert words in said(capsys, made.build_model, cfg.model)
    made.build_model(cfg.model, from_checkpoint=True)


@pytest.mark.parametrize(("kind", "metric"), [("encoder", "acc_2"), ("joint", "acc_1"), ("tokenizer", "cosine")])
def test_what_is_always_logged_may_choose_the_best_checkpoint(configure, kind, metric):
    cfg = configure(model={"stages": [{"kind": kind, "updates": 3}]}, checkpoint=best(metric))
    tasks.setup_task(cfg.task).build_model(cfg.model)


def test_a_joint_stage_has_no_use_for_codes_made_once(configure, capsys):
    run = Run(configure(model={"stages": [{"kind": "encoder", "updates": 1}, {"kind": "joint", "updates": 3}]}))
    run.task.cfg.codes = "codes"
    run.update(run.batch(range(4)))
    assert "task.codes in a joint stage" in said(capsys, run.update, run.batch(range(4)))


def test_a_codebook_larger_than_the_data_is_refused(configure, capsys):
    patches = 12 * 15000 // 1280 * 4
    task = tasks.setup_task(configure(model={"codebook_size": patches}).task)
    with pytest.raises(SystemExit):
        task.load_dataset("train")
    assert f"fewer than model.codebook_size {patches}" in capsys.readouterr().err
    task.load_dataset("valid")  # only the start of the codebooks needs that many


def test_splits_that_begin_with_train_are_cropped_and_augmented(configure, data):
    (data / "train_more.tsv").write_text((data / "train.tsv").read_text())
    task = tasks.setup_task(configure().task)
    for split, training in (("train", True), ("train_more", True), ("valid", False)):
        task.load_dataset(split)
        dataset = task.dataset(split)
        assert dataset.training == training and (dataset.media.augment is not None) == training
        first, second = (dataset[0]["source"], dataset.set_epoch(2) or dataset[0]["source"])
        assert torch.equal(first, second) != training
        assert len(first) <= 8000


def test_augmentation_can_be_switched_off(configure):
    task = tasks.setup_task(configure(roll=False, gain=False).task)
    task.load_dataset("train")
    assert task.dataset("train").media.augment is None


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


def test_updates_go_through_the_stages(run, caplog):
    with caplog.at_level("INFO"):
        for _ in range(7):
            run.update(run.batch(range(4)))
    said = [record.message for record in caplog.records if record.message.startswith("stage ")]
    assert [text[: text.index(":")] for text in said] == [
        "stage 1 of 2 begins", "stage 1 ends", "stage 1 ends", "stage 2 of 2 begins", "stage 2 ends", "stage 2 ends"
    ]  # fmt: skip


def test_a_collapsed_level_is_told(run, caplog):
    for _ in range(2):
        run.update(run.batch(range(4)))
    with torch.no_grad():
        run.model.quantizer.usage.zero_()[:, 0] = 1e9
    run.update(run.batch(range(4)))
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert sum("has collapsed" in text for text in warnings) == 0  # one of 8 codes is more than a tenth of them
    run.model.settings.codebook_size = 11
    run.task._report_stage(run.model)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert sum("has collapsed" in text for text in warnings) == 2


@pytest.mark.parametrize("update", [1, 4], ids=["encoder", "tokenizer"])
def test_a_dummy_batch_beside_a_real_one_changes_nothing(configure, update):
    states = []
    for dummies in ((), (1,)):
        run = Run(configure())
        while run.updates < update:
            run.update(run.batch(range(4)))
        batches = [run.batch(range(4)), run.batch(range(4, 8))]
        run.update(*batches[: 1 + len(dummies)], dummies=dummies)
        states.append(run.state())
    assert equal(*states)


def test_a_dummy_batch_counts_as_nothing(configure):
    run = Run(configure())
    run.update(run.batch(range(4)))
    run.model.train()
    for ignore in (False, True):
        loss, sample_size, log = run.task.train_step(
            run.batch(range(4)), run.model, run.criterion, run.optimizer, run.updates, ignore
        )
        assert (sample_size > 0) == (not ignore)
        assert (log["nsentences"], log["batches"], log["stage"]) == ((0, 0, 0) if ignore else (4, 1, 0))
        assert {key for key, value in log.items() if value} <= (set() if ignore else set(log))
        assert torch.is_tensor(log["loss_1"]) and log["masked"] == sample_size


def test_other_ranks_hide_other_patches(configure, monkeypatch):
    losses = []
    for rank in (0, 1, 2, 1):
        run = Run(configure())
        batch = run.batch(range(4))
        run.update(batch, step=False)
        torch.manual_seed(0)
        run.model.train()
        steps = []
        with monkeypatch.context() as patch:
            patch.setattr("bridle_fairseq.nn.distributed.rank", lambda rank=rank: rank)
            for _ in range(2):
                _, _, log = run.task.train_step(batch, run.model, run.criterion, run.optimizer, 0)
                steps.append(log["loss"].item())
        assert steps[0] != steps[1]  # nor do micro-batches hide the same
        losses.append(steps)
    assert losses[1] == losses[3]
    assert len({first for first, _ in losses}) == 3


def test_gradients_that_overflow_under_amp_leave_the_codebooks_alone(configure):
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


def test_an_update_that_is_thrown_away_leaves_no_trace(configure):
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


def test_the_best_validation_is_that_of_its_stage(run):
    for update in range(4):
        checkpoint_utils.save_checkpoint.best = 0.5
        run.update(run.batch(range(4)))
        assert hasattr(checkpoint_utils.save_checkpoint, "best") == (update in (1, 2))


def test_too_many_bad_clips_end_training(run, capsys):
    run.update(run.batch(range(4)))
    run.task.skips["train"].add(3, "burnt")
    with pytest.raises(SystemExit) as ended:
        run.update(run.batch(range(4)))
    assert ended.value.code == 2 and "1 of 12 clips had to be skipped" in capsys.readouterr().err


def test_the_first_batch_can_be_read(configure, data):
    """fairseq makes its dummy batch of it."""
    (data / "train-5.wav").write_bytes(b"RIFF")
    task = tasks.setup_task(configure().task)
    task.load_dataset("train")
    dataset = task.dataset("train")
    batches = dataset.batch_by_size(np.array([5, 3, 4, 1]), max_sentences=1)
    assert [list(batch) for batch in batches] == [[3], [4], [1], [5]]
    with pytest.raises(SystemExit):
        dataset.batch_by_size(np.array([5]), max_sentences=1)
