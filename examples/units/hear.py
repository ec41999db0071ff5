#!/usr/bin/env python3
"""Decode codes to sound: log-mel distance by number of levels (table and plot), and .wav files of codes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.models.checkpoints import load_model
from bridle_fairseq.nn.mel_decoder import DECIBELS
from bridle_fairseq.units.convert import prefix_of
from bridle_fairseq.units.griffin_lim import waveform
from bridle_fairseq.utils.device import choose_device
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary
from bridle_fairseq.utils.optional import optional_import
from bridle_fairseq.utils.process import run_script
from bridle_fairseq.utils.spreadsheet import write_table

DECODER = ("bridle_mel_decoder",)


def distances(model: Any, task: Any, manifest: str, batch_size: int) -> list[float]:
    """Mean absolute log-mel error in dB with 0, 1, ... K levels, over all clips of a manifest."""
    from bridle_fairseq.inference.pipeline import read_batches

    rows = Manifest.read(manifest)
    skips = SkipLog(rows, None)
    data = modality_of(task.cfg).dataset(rows, task.cfg, skips=skips)
    device = next(model.parameters()).device
    errors, values = 0.0, 0
    for batch in read_batches(data, batch_size):
        net_input = {name: None if x is None else x.to(device) for name, x in batch["net_input"].items()}
        with torch.inference_mode():
            out = model(**net_input)
        errors = errors + torch.stack(out.absolute_error()).double().cpu()
        values += int(out.valid.sum())
    skips.check(task.cfg.max_skipped)
    return (errors / values * 2 * out.std * DECIBELS).tolist()


def distance(args: argparse.Namespace) -> None:
    """Write distances.csv (a row per checkpoint) and distances.png (a line per checkpoint)."""
    by_checkpoint = {}
    for checkpoint in args.checkpoints:
        model, task = load_model(checkpoint, choose_device(args.device), DECODER)
        values = by_checkpoint[checkpoint] = distances(model, task, args.manifest, args.batch_size)
        print(f"{checkpoint}: " + "  ".join(f"{k}: {value:.3f} dB" for k, value in enumerate(values)))
    args.out.mkdir(parents=True, exist_ok=True)
    columns = max(map(len, by_checkpoint.values()))
    head = ["checkpoint", *(f"levels_{k}" for k in range(columns))]
    rows = ([name, *(f"{value:.4f}" for value in values)] for name, values in by_checkpoint.items())
    write_table(args.out / "distances.csv", [head, *rows])
    plot(by_checkpoint, args.out / "distances.png")
    print(f"{args.out / 'distances.csv'}, {args.out / 'distances.png'}")


def plot(by_checkpoint: dict[str, list[float]], path: Path) -> None:
    """Plot distance against number of levels, with a line per checkpoint."""
    with optional_import("the plot needs matplotlib", "'bridle_fairseq[units]'"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    several = len(by_checkpoint) > 1
    for name, values in zip(short_names(list(by_checkpoint)), by_checkpoint.values(), strict=True):
        axes.plot(range(len(values)), values, marker="o", label=name if several else None)
    ticks = range(max(map(len, by_checkpoint.values())))
    axes.set(xlabel="levels", ylabel="log-mel distance in dB", xticks=ticks, ylim=(0, None))
    if several:
        figure.legend(loc="outside lower center", fontsize="small")
    with atomic_binary(path) as file:
        figure.savefig(file, dpi=150, format="png")


def short_names(paths: list[str]) -> list[str]:
    """The paths without their common parent folders and their common ending."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    first = len(os.path.commonprefix(parts))
    last = len(os.path.commonprefix([part[first:][::-1] for part in parts]))
    return [os.path.join(*(part[first : len(part) - last] or part[-1:])) for part in parts]


def sound(args: argparse.Namespace) -> None:
    """Write a .wav of each chosen row for each number of levels, with phases by Griffin-Lim."""
    model, _ = load_model(args.checkpoint, choose_device(args.device), DECODER)
    prefix = prefix_of(args.codes, ".codes")
    codes = CachedCodes(prefix)
    if codes.info.checkpoint_sha256 != model.checkpoint_sha256:
        actual, expected = codes.info.checkpoint_sha256[:12], str(model.checkpoint_sha256)[:12]
        raise InputError(
            f"{prefix}.json: codes of another checkpoint (sha256 {actual}); expected those of {expected}, which "
            f"{args.checkpoint} decodes"
        )
    log_mel = model.front_end.log_mel
    args.out.mkdir(parents=True, exist_ok=True)
    for row in args.rows:
        if not 0 <= row < len(codes) or not len(codes.item(row)):
            raise InputError(f"--rows has {row}; expected rows with codes from 0 to {len(codes) - 1}")
        for levels in args.levels or [codes.info.num_codebooks]:
            mel = decode(model, codes.item(row), levels, int(codes.info.grid["patches_per_segment"]))
            path = args.out / f"{Path(prefix).name.removesuffix('.codes')}.{row}.levels{levels}.wav"
            samples = waveform(mel[None], log_mel)[0].cpu().numpy()
            samples = samples / max(1.0, np.abs(samples).max())
            with atomic_binary(path) as file:
                soundfile.write(file.name, samples, log_mel.sample_rate, format="WAV")
            print(path)


def decode(model: Any, codes: np.ndarray, levels: int, patches_per_chunk: int) -> torch.Tensor:
    """Log-mel (frames x mel bins) of a clip's codes (N x K). Each chunk is decoded separately, as it was tokenized."""
    device = next(model.parameters()).device
    starts = range(0, len(codes), patches_per_chunk)
    chunks = [torch.from_numpy(codes[start : start + patches_per_chunk]) for start in starts]
    return torch.cat([model.log_mel(chunk[None].to(device), levels)[0] for chunk in chunks])


def main() -> int:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (distance, sound):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--device", help="default: a GPU if there is one")
        if function is distance:
            command.add_argument("checkpoints", nargs="+", help="checkpoints of the model bridle_mel_decoder")
            command.add_argument("--manifest", required=True, help="manifest of held-out clips")
            command.add_argument("--batch-size", type=int, default=32)
            continue
        command.add_argument("checkpoint", help="checkpoint of the model bridle_mel_decoder")
        command.add_argument("codes", help="{split}.codes of the tokenizer that the decoder was trained for")
        command.add_argument("--levels", type=int, nargs="+", help="numbers of levels to decode (default: all)")
        command.add_argument("--rows", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    return run_script(args.function, args)


if __name__ == "__main__":
    sys.exit(main())
