"""What users do wrong: each command ends with exit code 2 and the one sentence that docs/mistakes.md has."""

import fcntl
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridle_fairseq import pretrained
from bridle_fairseq.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS, USER_DIR = ROOT / "examples" / "audio" / "config", ROOT / "bridle_fairseq"
PRETRAIN = f"fairseq-hydra-train --config-dir {CONFIGS}/pretraining --config-name tiny"
FINETUNE = f"fairseq-hydra-train --config-dir {CONFIGS}/finetuning --config-name tiny"
REST = f"common.user_dir={USER_DIR} task.data={{place}}/data hydra.run.dir=. model.codebook_size=12"
RUN = f"{PRETRAIN} {REST}"
TUNE = f"{FINETUNE} common.user_dir={USER_DIR} hydra.run.dir=. model.checkpoint={{place}}/run/checkpoint_last.pt"
CHECKPOINT, TSV = "{place}/run/checkpoint_last.pt", "{place}/data/train.tsv"

# name -> (command, its sentence); "..." in a sentence stands for any text
MISTAKES = {
    "a configuration's name with a typo": (
        RUN.replace("name tiny", "name tny"),
        "--config-name tny: no such configuration in ...; did you mean tiny?",
    ),
    "no such folder of configurations": (
        RUN.replace("/pretraining", "/pretrainin"),
        "--config-dir ...: no such folder; expected one with configurations (*.yaml)",
    ),
    "no folder of configurations": (
        f"fairseq-hydra-train --config-name small {REST}",
        "--config-name small, but --config-dir is missing; expected ...",
    ),
    "no name of a configuration": (
        RUN.replace("--config-name tiny ", ""),
        "task.data: the configuration has no such key; expected one that sets task ...",
    ),
    "common.user_dir is missing": (
        RUN.replace(f"common.user_dir={USER_DIR}", ""),
        "common.user_dir is missing: no task bridle_pretraining in fairseq itself; ...",
    ),
    "common.user_dir is a relative path": (
        RUN.replace(f"user_dir={USER_DIR}", "user_dir=bridle_fairseq"),
        "common.user_dir is bridle_fairseq: no such folder below ...",
    ),
    "a key with a typo": (
        f"{RUN} optimization.max_updat=3",
        "optimization.max_updat: no such key; did you mean optimization.max_update?",
    ),
    "a key of the task with a typo": (f"{RUN} task.dta=x", "task.dta: no such key; did you mean task.data? (...)"),
    "an unknown setting with a plus": (
        f"{RUN} +model.encoder_dept=2",
        "model.encoder_dept: no such key; did you mean model.encoder_depth?",
    ),
    "a variant with a typo": (
        f"{RUN} +variant=fst",
        "variant/fst: no such configuration in group variant; did you mean fast?",
    ),
    "a text for a number": (
        f"{RUN} optimization.max_update=abc",
        "optimization.max_update is abc; expected a whole number",
    ),
    "a number for a list": (
        f"{RUN} optimization.lr=0.1",
        "optimization.lr is no list; expected one, such as 'optimization.lr=[1]'",
    ),
    "spaces around =": (
        f"{RUN} optimization.max_update = 3",
        "'optimization.max_update' sets nothing; expected KEY=VALUE, without spaces around =",
    ),
    "a quote too many": (f"{RUN} task.data='x", "... cannot be read; expected KEY=VALUE, in quotes for the shell: ..."),
    "an unknown interpolation": (
        f"{RUN} task.data=${{{{foo.bar}}}}",
        "task.data=${foo.bar}: the configuration has no key foo.bar; expected ...",
    ),
    "an optimizer with a typo": (
        f"{RUN} optimizer._name=bridle_adam",
        "optimizer bridle_adam: not registered by ...; did you mean bridle_adamw?",
    ),
    "task.data is missing": (
        RUN.replace("task.data={place}/data", ""),
        "task.data is not set; expected the folder of {split}.tsv manifests",
    ),
    "task.data is a relative path": (
        RUN.replace("task.data={place}/data", "task.data=data"),
        "task.data is data, which is no folder in ... (hydra changes ...); expected ...",
    ),
    "a batch size of 0": (f"{RUN} dataset.batch_size=0", "dataset.batch_size is 0; expected at least 1"),
    "a negative number of layers": (
        f"{RUN} model.encoder_depth=-1",
        "model.encoder_depth is -1; expected at least 1 ...",
    ),
    "a run that goes on with another model": (
        f"{RUN} checkpoint.save_dir={{place}}/run",
        "...: model.num_mel_bins is 64 in this run and 128 in the ...",
    ),
    "a run in the folder of another run": (
        f"{RUN} checkpoint.save_dir={{place}}/locked",
        "checkpoint.save_dir is ..., in which another process trains; expected ...",
    ),
    "no manifest": (
        RUN.replace("{place}/data", "{place}/empty"),
        "...valid.tsv: cannot read this manifest: No such file or directory",
    ),
    "spaces instead of tabs in a manifest": (
        RUN.replace("{place}/data", "{place}/spaces"),
        "...train.tsv, line 2: 1 column in ...",
    ),
    "a row whose file is missing": (
        RUN.replace("{place}/data", "{place}/gone"),
        "...train.tsv, line 3: no such file: ...",
    ),
    "labels that do not match the rows": (
        f"{TUNE} task.data={{place}}/short_labels",
        "...valid.lbl: 1 lines; expected 3, one for each row of ...valid.tsv",
    ),
    "codes of another manifest": (
        f"{RUN} task.codes={{place}}/other_codes task.roll=false",
        "...valid.codes.json: codes of another manifest (...); expected those of ...",
    ),
    "a checkpoint that is not one": (
        f"bridle features {TSV} {TSV} --out out",
        "...train.tsv: not a checkpoint that fairseq can load (...)",
    ),
    "no such checkpoint": (
        f"bridle features none.pt {TSV} --out out",
        "none.pt: no such checkpoint in ...; expected ...",
    ),
    "an export where a run is expected": (
        "bridle report {place}/exported",
        "...exported: no log with JSON lines (...) and no tensorboard files; ...",
    ),
    "an output folder that cannot be written": (
        f"bridle features {CHECKPOINT} {TSV} --out /proc/out",
        "/proc/out: No such file or directory",
    ),
    "a shard out of range": (
        f"bridle tokenize {CHECKPOINT} {TSV} --out out --shard 3/2",
        "--shard is '3/2'; expected I/N with I from 0 to N - 1, such as 0/4",
    ),
    "an empty folder": ("bridle manifest {place}/empty --dest out", "...empty: no file found with extension .wav, ..."),
    "a table without the column of labels": (
        "bridle manifest {place}/data --labels {place}/nolabel.csv --dest out",
        "...nolabel.csv: columns file, kind; expected for the label one of ...",
    ),
    "a probe without labels": (
        f"bridle probe {CHECKPOINT} {{place}}/data --out out",
        "...labels.csv: cannot read this csv file: No such file or directory",
    ),
    "predict without a head": (
        f"bridle predict {CHECKPOINT} x.wav",
        "...a checkpoint of the model 'bridle'; expected one of 'bridle_classifier' ...",
    ),
    "images for a model of sounds": (
        RUN.replace("{place}/data", "{place}/images"),
        "...train.tsv: none of 26 files tried can be read, such as ...a.png (...)",
    ),
    "a length that is no number": (
        RUN.replace("{place}/data", "{place}/words"),
        "...train.tsv, line 3: size 'long'; expected a whole number ...",
    ),
    "a class that labels.csv lacks": (
        f"{TUNE} task.data={{place}}/other_class",
        "...valid.lbl, line 1: unknown class 'z'; expected one of the 2 ids in ...",
    ),
    "an image for an exported model of sounds": (
        "bridle embed {place}/pictures/a.png --model {place}/exported --out x.npy",
        "not one of 1 files can be used; ...a.png: not readable as sound...",
    ),
    "images without --modality": (
        "bridle manifest {place}/pictures --dest out",
        "...pictures: no file found with extension .wav, ...; did you mean --modality image?",
    ),
    "class folders that are none": (
        "bridle manifest {place}/pictures --modality image --class-folders --dest out",
        "...pictures: none of 1 files is in a folder of its class; expected class/x below it",
    ),
    "a share in percent": (
        "bridle manifest {place}/data --valid-percent 15 --dest out",
        "share for validation 15.0; expected 0 to under 1, such as 0.05",
    ),
    "a class that --classes lacks": (
        "bridle manifest {place}/data --labels {place}/label.csv --classes {place}/short_labels/labels.csv --dest out",
        "unknown class 'z' in the label table; expected one of those in ...",
    ),
    "bridle train: a name with a typo": (
        "bridle train images/tny {place}/data --run run",
        "no configuration 'images/tny'; expected one of images/tiny, ...",
    ),
    "media in place of manifests": (
        "bridle train images/tiny {place}/pictures --run run",
        "...pictures: no train.tsv; expected a folder that bridle manifest wrote: ...",
    ),
    "an unknown command": ("bridle tokenise x y", "argument COMMAND: invalid choice: 'tokenise' (choose from ...)"),
}


@pytest.fixture(scope="module")
def place(fairseq, data, make_data, made_once):
    """A folder with a run, its export, and what the commands of :data:`MISTAKES` are given."""

    def make(folder):
        folder.mkdir(exist_ok=True)
        shutil.copytree(data, folder / "data")
        fairseq.train(folder / "run", "optimization.max_update=1", "checkpoint.save_dir=.", data=data)
        fairseq.run(folder, "bridle", "export", folder / "run" / "checkpoint_last.pt", folder / "exported")
        for name in (
            "empty",
            "spaces",
            "gone",
            "short_labels",
            "other",
            "locked",
            "images",
            "words",
            "pictures",
            "other_class",
        ):
            (folder / name).mkdir()
            if name not in ("empty", "locked", "pictures"):
                shutil.copy(folder / "data" / "valid.tsv", folder / name)
        rows = (folder / "data" / "train.tsv").read_text().splitlines()
        for name in ("images", "pictures"):
            Image.new("RGB", (32, 32)).save(folder / name / "a.png")
        for name, lines in {
            "spaces": [rows[0], *(row.replace("\t", " ") for row in rows[1:])],
            "gone": [*rows[:2], "gone.wav\t5000", *rows[2:]],
            "words": [*rows[:2], rows[2].partition("\t")[0] + "\tlong", *rows[3:]],
            "images": [str(folder / "images"), *(["a.png\t5000"] * 26)],
            "short_labels": rows,
            "other_class": rows,
        }.items():
            (folder / name / "train.tsv").write_text("\n".join(lines) + "\n")
        for name in ("short_labels", "other_class"):
            (folder / name / "labels.csv").write_text("index,mid,display_name\n0,a,a\n1,b,b\n")
        for split in ("train", "valid"):
            (folder / "short_labels" / f"{split}.lbl").write_text("a\n")
            (folder / "other_class" / f"{split}.lbl").write_text("z\n" * (3 if split == "valid" else len(rows) - 1))
        few = (folder / "data" / "valid.tsv").read_text().splitlines()[:-1]
        (folder / "other" / "valid.tsv").write_text("\n".join(few) + "\n")
        checkpoint = folder / "run" / "checkpoint_last.pt"
        fairseq.run(folder, "bridle", "tokenize", checkpoint, folder / "other" / "valid.tsv", "--out", "other_codes")
        first = rows[1].partition("\t")[0]
        (folder / "label.csv").write_text(f"file,label\n{first},z\n")
        (folder / "nolabel.csv").write_text("file,kind\nx.wav,a\n")

    return made_once("mistakes", make)


@pytest.fixture(scope="module")
def lock(place):
    """Holds the lock of a run, as a run of another process does."""
    with open(place / "locked" / ".lock", "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def pattern_of(sentence):
    return ".*".join(re.escape(part) for part in sentence.split("..."))


@pytest.fixture(scope="module")
def finished(fairseq, place, lock, tmp_path_factory):
    """mistake -> (exit code, what the command printed); three run at a time."""

    def run(name):
        folder = tmp_path_factory.mktemp("mistake")
        job = fairseq.forker.start([part.format(place=place) for part in MISTAKES[name][0].split()], folder)
        return job.wait(), job.log()

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(MISTAKES, pool.map(run, MISTAKES), strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_has_one_sentence(finished, mistake):
    codes, log = finished[mistake]
    assert codes == [2], log[-3000:]
    errors = [line for line in log.splitlines() if re.match(r"(bridle|bridle_fairseq|fairseq): error: ", line)]
    assert len(errors) == 1 and "Traceback" not in log, log[-3000:]
    assert re.fullmatch(pattern_of(MISTAKES[mistake][1]), errors[0].partition("error: ")[2]), errors[0]


ONE_AXIS = "expected one axis of floats, mono"
CALLS = {  # arguments of embed in Python -> the sentence of its exception
    "a stereo array": (
        np.zeros((2, 8000), np.float32),
        16000,
        f"waveform 0 has 2 axes of torch.float32; {ONE_AXIS}: samples.mean(1)",
    ),
    "an array with 3 axes": (
        np.zeros((2, 1, 8000), np.float32),
        16000,
        f"waveform 0 has 3 axes of torch.float32; {ONE_AXIS}: samples.mean(1)",
    ),
    "integer samples": (
        np.full(8000, 70000),
        16000,
        f"waveform 0 has 1 axes of torch.int64; {ONE_AXIS}: see soundfile.read",
    ),
    "a sample rate of 0": (np.zeros(8000, np.float32), 0, "sample_rate is 0; expected the waveforms' samples a second"),
}


@pytest.mark.parametrize("mistake", CALLS)
def test_mistake_in_python_has_one_sentence(place, mistake):
    samples, rate, sentence = CALLS[mistake]
    with pytest.raises(InputError) as raised:
        pretrained.load(place / "exported").embed([samples], rate)
    assert str(raised.value) == sentence


def test_page_lists_all_mistakes():
    """docs/mistakes.md has each mistake with the sentence that is tested."""
    rows = re.findall(r"^\| ([^|]+) \| `+ ?(.+?) ?`+ \|$", (ROOT / "docs" / "mistakes.md").read_text(), re.MULTILINE)
    expected = {name: sentence for name, (_, sentence) in MISTAKES.items()}
    assert dict(rows) == expected | {name: sentence for name, (*_, sentence) in CALLS.items()}
    assert len(rows) >= 30
