#!/usr/bin/env python3
"""A trained language model over units: its perplexity compared with a unigram, and units sampled from it."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bridle_fairseq.data.audio.dataset import total_seconds
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.units import sentencepiece as pieces
from bridle_fairseq.units.convert import prefix_of
from bridle_fairseq.units.info import UnitsInfo, read_units_info, write_units_info
from bridle_fairseq.units.scheme import from_characters
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.process import run_script


def load(checkpoint: str, data: str) -> tuple[Any, Any]:
    """A fairseq language model in eval mode, and its task.

    fairseq builds it with the checkpoint's settings: only load files that you trust.
    """
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    from bridle_fairseq.models.checkpoint_file import read_state

    if not Path(checkpoint).is_file():
        raise InputError(f"{checkpoint}: no such checkpoint; expected one of the task language_modeling")
    if not Path(data, "dict.txt").is_file():
        raise InputError(f"{data}: no dict.txt; expected a folder of fairseq-preprocess --only-source")
    try:
        cfg = read_state(checkpoint)["cfg"]
        names = cfg["task"]["_name"], cfg["model"]["_name"]
    except (KeyError, TypeError):
        names = "no task", "no model"
    if names != ("language_modeling", "transformer_lm"):
        raise InputError(f"{checkpoint}: {names[0]}, {names[1]}; expected language_modeling, transformer_lm")
    try:
        (model,), _, task = load_model_ensemble_and_task([checkpoint], {"data": str(Path(data).resolve())})
    except RuntimeError as error:  # such as an embedding of another size
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{checkpoint}: {reason}; expected a model of the tokens of {data}/dict.txt") from None
    return model.eval(), task


def read_lines(data: str, split: str, dictionary: Any) -> Any:
    """The lines of a split with their end tokens, as fairseq-preprocess wrote them."""
    from fairseq.data.data_utils import load_indexed_dataset

    lines = load_indexed_dataset(str(Path(data, split)), dictionary)
    if lines is None:
        raise InputError(
            f"{Path(data, split)}.idx: no such file; expected what fairseq-preprocess --only-source writes"
        )
    return lines


@torch.no_grad()
def bits(model: Any, line: torch.Tensor, end: int) -> float:
    """Negative log-likelihood of a line in bits. The context starts with an end token, as in training."""
    inputs = torch.cat([line.new_tensor([end]), line[:-1]])[None]
    logits = model(inputs)[0][0].float()
    return float(torch.nn.functional.cross_entropy(logits, line, reduction="sum")) / math.log(2)


def score(args: argparse.Namespace) -> None:
    """Print perplexity, bits per token and bits per second, compared with a unigram fitted on the training lines."""
    model, task = load(args.checkpoint, args.data)
    dictionary = task.output_dictionary
    lines = read_lines(args.data, args.split, dictionary)
    manifest = Manifest.read(args.manifest)
    if len(lines) != len(manifest):
        raise InputError(f"{args.data}/{args.split}.idx: {len(lines)} lines; expected {len(manifest)}, one per row")
    counts, train_counts = (
        sum(np.bincount(line.numpy(), minlength=len(dictionary)) for line in split)[dictionary.eos_index :]
        for split in (lines, read_lines(args.data, "train", dictionary))
    )
    unigram = pieces.unigram_cost(counts, train_counts)
    total = sum(bits(model, line, dictionary.eos()) for line in lines)
    seconds = total_seconds(manifest, [row for row in range(len(lines)) if len(lines[row]) > 1])
    print("                   perplexity  bits/token    bits/s")
    for name, cost in (("unigram", unigram.held_out), ("language model", total / unigram.tokens)):
        print(f"{name:17}  {2**cost:10.1f}  {cost:10.3f}  {cost * unigram.tokens / seconds:8.1f}")
    print(f"{unigram.tokens} tokens including the ends of {len(lines)} lines, {seconds:.1f} s")


class Grammar:
    """Which tokens may follow: those whose first unit has the next level, and the end token after a whole time step.

    Args:
        texts: units of each token as characters; empty for special tokens.
        info: description of the units.
        end: the token that ends a line.
    """

    def __init__(self, texts: list[str], info: UnitsInfo, end: int) -> None:
        scheme, self.end = info.scheme, end
        self.levels = scheme.step
        self.time_step = scheme.step * int(info.codes.grid.get("frequency_patches", 1))
        units = [from_characters(text) - scheme.first_character(0) for text in texts]
        self.lengths = torch.tensor([len(of_token) for of_token in units])
        first = [int(of_token[0]) // scheme.codebook_size if len(of_token) else -1 for of_token in units]
        self.first = torch.tensor(first)

    def forbidden(self, position: torch.Tensor) -> torch.Tensor:
        """Number of units so far (B) -> mask of forbidden tokens (B x tokens)."""
        mask = self.first != (position % self.levels)[:, None]
        mask[:, self.end] = (position % self.time_step != 0) | (position == 0)
        return mask


@torch.no_grad()
def draw(model: Any, grammar: Grammar, args: argparse.Namespace) -> list[list[int]]:
    """Sample lines of tokens autoregressively."""
    generator = torch.Generator().manual_seed(args.seed)
    tokens, position, state = torch.full((args.count, 1), grammar.end), torch.zeros(args.count, dtype=torch.long), {}
    done = torch.zeros(args.count, dtype=torch.bool)
    while not done.all() and tokens.shape[1] <= args.max_tokens:
        logits = model(tokens, incremental_state=state)[0][:, -1].float() / args.temperature
        logits = logits.masked_fill(grammar.forbidden(position), -torch.inf)
        if args.top_k:
            least = logits.topk(min(args.top_k, logits.shape[1]))[0][:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        drawn = torch.multinomial(logits.softmax(1), 1, generator=generator)
        done |= drawn[:, 0] == grammar.end
        position = torch.where(done, 0, position + grammar.lengths[drawn[:, 0]])
        tokens = torch.cat([tokens, drawn], 1)
    lines = [line[1:].tolist() for line in tokens]
    return [line[: line.index(grammar.end)] if grammar.end in line else line for line in lines]


def sample(args: argparse.Namespace) -> None:
    """Sample units and write them as files that `bridle units --back` converts to codes."""
    info = read_units_info(prefix_of(args.like, ".units"))
    if info.format != "text" or info.layout == "flattened" or info.dedup:
        raise InputError(f"{args.like}: expected text units of one level or interleaved ones, without deduplication")
    model, task = load(args.checkpoint, args.data)
    where = f"{prefix_of(args.like, '.units')}.json"
    processor, dictionary = pieces.load_matching(args.model, where, info), task.dictionary
    numbers = [int(token) if token.isdecimal() else pieces.UNKNOWN for token in dictionary.symbols]
    if max(numbers) >= processor.get_piece_size():
        raise InputError(f"{args.data}/dict.txt: a token {max(numbers)}; expected the pieces of {args.model}")
    texts = ["" if number == pieces.UNKNOWN else processor.id_to_piece(number) for number in numbers]
    grammar = Grammar(texts, info, dictionary.eos())
    drawn = ["".join(texts[token] for token in line) for line in draw(model, grammar, args)]
    kept = [text[: len(text) // grammar.time_step * grammar.time_step] for text in drawn]
    stem = args.out / args.name
    with atomic_text(f"{stem}.txt") as file:
        file.writelines(text + "\n" for text in kept)
    # sampled units belong to no clip, so this fingerprint matches no manifest
    codes = dataclasses.replace(info.codes, manifest_sha256="made up by a language model")
    write_units_info(f"{stem}.units", dataclasses.replace(info, codes=codes, rows=len(kept)))
    dropped = sum(map(len, drawn)) - sum(map(len, kept))
    print(f"{stem}.txt: {len(kept)} lines, {sum(map(len, kept))} units; {dropped} dropped from incomplete time steps")


def main() -> int:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (score, sample):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("checkpoint", help="checkpoint of the task language_modeling")
        command.add_argument("data", help="output folder of fairseq-preprocess")
        if function is score:
            command.add_argument("--split", default="valid")
            command.add_argument("--manifest", required=True, help="manifest of the split, for its duration")
            continue
        command.add_argument("model", help="SentencePiece model whose pieces the tokens are")
        command.add_argument("--like", required=True, help="{split}.units that the model was trained on")
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--name", default="sampled", help="name of the files (%(default)s)")
        command.add_argument("--count", type=int, default=4, help="number of lines (%(default)s)")
        command.add_argument("--max-tokens", type=int, default=1024, help="longest line in tokens (%(default)s)")
        command.add_argument("--temperature", type=float, default=1.0)
        command.add_argument("--top-k", type=int, default=0, help="sample among this many most likely tokens; 0: all")
        command.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    return run_script(args.function, args)


if __name__ == "__main__":
    sys.exit(main())
