"""A process that reads damaged files as the package's users do, and says how each went.

One request a line on standard input (``{"kind", "path"}``), one answer a line on standard output: ``result`` is ok,
refused, or the traceback of an exception that a user must not see; ``megabytes`` is the most memory over the base.
"""

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

os.environ["OMP_NUM_THREADS"] = "1"

import audit
import torch

import bridle_fairseq
from bridle_fairseq.cli.main import main
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.utils.errors import DecodeError, InputError

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))
import formats
from memory import family, forget_peaks, peak_megabytes

torch.set_num_threads(1)
SECOND = 16000
LONGEST = 2**40  # samples that no file of this size can hold: a length that was claimed or is unknown
TASK = {  # of all modalities
    "seed": 1,
    "num_buckets": 16,
    "sample_rate": SECOND,
    "max_sample_size": SECOND,
    "min_sample_size": 1,
    "roll": True,
    "gain": True,
    "image_size": 64,
    "num_frames": 4,
    "frame_stride": 2,
    "random_start": True,
    "valid_crop": 0.875,
    "crop": True,
    "min_area": 0.2,
    "flip": True,
    "rand_augment": 0,
    "rand_magnitude": 0,
    "erase": 0.0,
    "repeats": 1,
    "segment_crops": False,
}


class Unusable(Exception):
    """A file was read to values that must not reach a model."""


def read_media(path, kind):
    """As training reads a file, and as commands read it."""
    cfg = SimpleNamespace(modality=kind, **TASK)
    modality = modality_of(cfg)
    size = modality.measure(str(path))
    if not 0 < size < LONGEST:
        raise Unusable(f"{size} samples or frames")
    dataset = modality.dataset(Manifest(str(path.parent), [path.name], [size]), cfg, training=True)
    source = dataset.item(0)["source"]
    if source is not None:
        check(source)
    reader = modality.reader(cfg)
    length = reader.length(str(path), size)
    check(reader.read(str(path), 0, min(length, SECOND)))
    if kind == "audio":
        check(reader.read(str(path), max(0, length - 100), 100))


def check(values):
    if values.numel() == 0 or (values.is_floating_point() and not torch.isfinite(values).all()):
        raise Unusable(f"{values.numel()} values, of which {int(torch.isfinite(values).sum())} are finite")


def read_format(path):
    """The folder in ``path``, whose name is one of tests/hostile/formats.py."""
    (folder,) = path.iterdir()
    formats.READERS[folder.name](folder)


def run_command(path):
    """The command in command.json; it must end with 0, or with 2 and a sentence."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = main(json.loads((path / "command.json").read_text()))
        except SystemExit as end:
            code = end.code
    if os.environ["SOAK_SECRET"] in printed.getvalue():
        audit.note("leaked", "the command printed a variable of the environment")
    if code == 2 and "error: " in printed.getvalue():
        raise InputError(printed.getvalue()[-300:])
    if code != 0 or "Traceback (most" in printed.getvalue():
        raise Unusable(f"exit code {code}: {printed.getvalue()[-2000:]}")


READ = {"format": read_format, "command": run_command}


def attempt(kind, path):
    """The result of reading a file, and the text of an exception."""
    try:
        READ[kind](path) if kind in READ else read_media(path, kind)
    except (DecodeError, InputError) as error:
        return "refused", str(error)[:300]
    except BaseException:
        return "traceback", traceback.format_exc()[-3000:]
    return "ok", ""


def serve():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    bridle_fairseq.register()
    for line in sys.stdin:
        request = json.loads(line)
        forget_peaks()
        processes, base = len(family()), peak_megabytes()
        result, text = attempt(request["kind"], Path(request["path"]))
        if len(family()) != processes:  # video has got its own
            forget_peaks()
            base = peak_megabytes()
        answer = {"result": result, "text": text, "megabytes": max(0.0, peak_megabytes() - base)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
