"""k-NN accuracy during pretraining: when it is logged, its value, and that training is unchanged."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.training.log import parse_board, series

SHORT = ["optimization.max_update=8", "dataset.validate_interval_updates=2", "common.tensorboard_logdir=board"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, modality):
    """Clips of three pitches (images: colours) in noise, partly separable; some sounds are longer than a crop."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    classes = Classes(["a", "b", "c"], ["a", "b", "c"])
    classes.write(folder / "labels.csv")
    for split, count in (("train", 21), ("valid", 17)):
        labels, sizes = rng.integers(0, 3, count), rng.integers(3000, 12000, count)
        for number, (label, size) in enumerate(zip(labels, sizes, strict=True)):
            if modality == "image":
                pixels = rng.integers(0, 200, (30, 20 + number, 3)) + 30 * np.eye(3)[label]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split} {number}.png")
                continue
            wave = 0.02 * np.sin(0.1 * (label + 1) * np.arange(size)) + 0.1 * rng.standard_normal(size)
            soundfile.write(folder / f"{split} {number}.wav", wave, 16000)
        ending, sizes = ("png", [1] * count) if modality == "image" else ("wav", sizes)
        Manifest(folder, [f"{split} {n}.{ending}" for n in range(count)], sizes).write(folder / f"{split}.tsv")
        Labels([[label] for label in labels], classes).write(folder / f"{split}.lbl")
    return folder


def with_knn(folder, every=4):
    return [*SHORT, f"task.knn_data={folder}", f"task.knn_every={every}", "task.knn_k=3"]


@pytest.fixture(scope="module")
def knn_run(fairseq, labelled, stages, tmp_path_factory):
    return fairseq.train(tmp_path_factory.mktemp("knn_run"), *with_knn(labelled), stages=stages)


def reference_accuracy(path, folder):
    """Reference k-NN and ridge accuracy: features are computed one clip at a time from the checkpoint."""
    from bridle_fairseq.data.modalities import modality_of
    from bridle_fairseq.evaluation.ridge import leave_one_out_fit
    from bridle_fairseq.models.checkpoints import load_model
    from bridle_fairseq.nn.knn import knn_accuracy

    (model, task), classes = load_model(str(path)), Classes.read(folder / "labels.csv")
    reader, longest = modality_of(task.cfg).reader(task.cfg), modality_of(task.cfg).segment(task.cfg)
    tensors, statistics = [], []
    for split in ("train", "valid"):
        manifest = Manifest.read(folder / f"{split}.tsv")
        labels = Labels.read(folder / f"{split}.lbl", manifest, classes)
        sizes = [min(longest, int(size)) for size in manifest.sizes]
        items = [reader.read(manifest.path(row), 0, size) for row, size in enumerate(sizes)]
        patches = [model.extract_features(item[None])["x"] for item in items]
        tensors += [torch.cat([x.mean(1) for x in patches]), torch.tensor([labels[n][0] for n in range(len(manifest))])]
        rows = model.front_end.rows
        over_time = patches if rows is None else [x.unflatten(1, (-1, rows)) for x in patches]  # 1 x T x F x D
        pooled = [torch.cat([x.mean(1).flatten(1), x.std(1, correction=0).flatten(1)], 1) for x in over_time]
        statistics.append(torch.cat(pooled).numpy())
    known, labels = tensors[1], tensors[3]
    ridge = leave_one_out_fit(statistics[0], known.numpy())(statistics[1]).argmax(1) == labels.numpy()
    return {"knn_accuracy": knn_accuracy(*tensors, k=3), "ridge_accuracy": ridge.mean()}


@pytest.mark.modalities("audio", "image")
def test_accuracy_is_logged_every_knn_every_updates(knn_run, labelled):
    logged = knn_run.logged("valid")
    assert sorted(logged) == [2, 4, 6, 8]
    assert [update for update, values in logged.items() if "knn_accuracy" in values] == [4, 8]
    expected = reference_accuracy(knn_run.path(), labelled)
    for name, value in expected.items():
        assert logged[8][name] == pytest.approx(value, abs=1e-3)
        assert name in logged[4] and name not in logged[6]
    assert 0 < logged[8]["knn_accuracy"] < 1


def test_accuracy_is_in_tensorboard(knn_run):
    (path,) = (knn_run.folder / "board" / "valid").glob("events*")
    values = dict(series(parse_board([path]), "knn_accuracy", "valid"))
    expected = {update: knn_run.logged("valid")[update]["knn_accuracy"] for update in (4, 8)}
    assert values == pytest.approx(expected, abs=1e-4)


def test_training_is_bit_identical_without_knn(fairseq, knn_run, compare, stages, tmp_path):
    plain = fairseq.train(tmp_path, *SHORT, stages=stages)
    assert "knn_accuracy" not in plain.log
    assert compare(plain.state(), knn_run.state()) == []


def test_two_ranks_share_the_clips(fairseq, labelled, stages, tmp_path):
    run = fairseq.train(tmp_path, *with_knn(labelled), stages=stages, ranks=2)
    logged = {update: values for update, values in run.logged("valid").items() if "knn_accuracy" in values}
    assert sorted(logged) == [4, 8]
    for name, value in reference_accuracy(run.path(), labelled).items():
        assert logged[8][name] == pytest.approx(value, abs=1e-3)


def test_resumed_run_measures_at_the_same_updates(fairseq, labelled, knn_run, stages, tmp_path):
    fairseq.train(tmp_path, *with_knn(labelled), "optimization.max_update=5", stages=stages)
    run = fairseq.train(tmp_path, *with_knn(labelled), stages=stages)
    values = [run.logged("valid")[update].get("knn_accuracy") for update in (4, 5, 6, 8)]
    expected = knn_run.logged("valid")
    assert values == [expected[4]["knn_accuracy"], None, None, expected[8]["knn_accuracy"]]


def test_overdue_measurement_is_made_after_resuming(fairseq, labelled, knn_run, stages, tmp_path):
    """The run stops at 5, before the validation that would have measured k-NN accuracy for update 4."""
    first = [*with_knn(labelled), "optimization.max_update=5", "dataset.disable_validation=true"]
    fairseq.train(tmp_path, *first, stages=stages)
    run = fairseq.train(tmp_path, *with_knn(labelled), stages=stages)
    assert {update: "knn_accuracy" in values for update, values in run.logged("valid").items()} == {6: True, 8: True}
    assert run.logged("valid")[8]["knn_accuracy"] == knn_run.logged("valid")[8]["knn_accuracy"]


def test_knn_accuracy_can_select_the_best_checkpoint(fairseq, labelled, stages, tmp_path):
    """With two validation sets, because fairseq needs the value in the metrics of each."""
    best = ["checkpoint.best_checkpoint_metric=knn_accuracy", "checkpoint.maximize_best_checkpoint_metric=true"]
    best += ["checkpoint.save_interval_updates=2", "dataset.valid_subset='valid,valid'"]
    run = fairseq.train(tmp_path, *with_knn(labelled, every=1), *best, stages=stages)
    logged = {update: values["knn_accuracy"] for update, values in run.logged("valid").items()}
    assert sorted(logged) == [2, 4, 6, 8]
    assert max(logged.values()) > min(logged.values())
    kept = torch.load(tmp_path / "checkpoints" / "checkpoint_best.pt", weights_only=False)
    (update,) = (entry["num_updates"] for entry in kept["optimizer_history"][-1:])
    assert logged[update] == max(logged.values())


def test_user_errors_end_before_training(fairseq, labelled, data, stages, tmp_path):
    errors = {
        "no data": (["task.knn_every=4"], "task.knn_data is not; expected a folder of labelled clips"),
        "no labels": ([f"task.knn_data={data}", "task.knn_every=4"], "labels.csv"),
        "no neighbour": ([*with_knn(labelled), "task.knn_k=0"], "task.knn_k is 0; expected at least 1"),
    }
    for name, (overrides, sentence) in errors.items():
        run = fairseq.train(tmp_path / name.replace(" ", "-"), *overrides, stages=stages, code=2)
        assert sentence in run.log and "Traceback" not in run.log, name
