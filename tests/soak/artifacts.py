"""Damaged and hostile files of the package's own formats, and tables."""

import json
import os
import pickle
import shutil

import torch
from mutate import ODD, damaged, edited
from tally import Result
from workshop import ROOT, module_of, state_of

formats, mutations = (module_of(ROOT / "tests" / "hostile" / f"{name}.py") for name in ("formats", "mutations"))

NAMES = [
    "../../escaped",
    "/tmp/escaped",
    "..",
    ".hidden",
    "",
    "a/b",
    "a\\b",
    "=cmd()",
    "${env:SOAK_SECRET}",
    "a\x00b",
    "x" * 300,
]
MODELS = ["wav2vec2", "hubert", "data2vec_audio", "transformer_lm", "bridle_classifier", "bridle_ctc", "x", None, 3]
TASKS = ["audio_pretraining", "language_modeling", "translation", "bridle_classification", "x", None]


class Payload:
    """Unpickled, it runs a command."""

    def __reduce__(self):
        return os.system, ("true",)


class Artifacts:
    """The formats of tests/hostile/formats.py, and commands that get damaged codes, units, checkpoints and tables."""

    def __init__(self, shop):
        self.shop = shop
        self.folder = shop.fresh("case")
        self.out = self.folder / "out" / "x"
        self.reader = shop.reader
        self.state = state_of(shop.checkpoint)
        self.kinds = (*[self.format] * 5, self.units, *[self.checkpoint] * 3, self.table)
        self.valid = shop.fresh("valid")
        formats.write_all(self.valid)

    def attempt(self, random):
        self.shop.fresh("case")
        make = random.choice(self.kinds)
        kind = make(random)
        result = self.reader.read(kind, self.folder / "out" if kind == "format" else self.folder, self.folder)
        done = Result(problems=result.problems, megabytes=result.megabytes)
        done.tried["edits"] += 1
        done.tried["refused"] += result.tried["refused"]
        return done

    def _command(self, *words):
        (self.folder / "command.json").write_text(json.dumps([str(word) for word in words]))
        return "command"

    def format(self, random):
        name = random.choice(list(formats.READERS))
        folder = self.folder / "out" / name  # some of these readers also write there
        shutil.copytree(self.valid / name, folder)
        mutations.mutate(folder, random)
        return "format"

    def units(self, random):
        """``bridle units`` on damaged codes, and back on damaged units."""
        back = random.random() < 0.5
        shutil.copytree(self.shop.folder / ("units" if back else "tokenize"), self.folder / "files")
        mutations.mutate(self.folder / "files", random)
        source = ["--back", self.folder / "files" / "big.units"] if back else [self.folder / "files" / "big.codes"]
        return self._command("units", *source, "--out", self.out)

    def checkpoint(self, random):
        path = self.folder / "file.pt"
        self._write_checkpoint(random, path)
        name = random.choice(["tokenize", "features", "export"])
        data = [self.shop.data / "valid.tsv", "--out"] if name != "export" else []
        return self._command(name, path, *data, self.out)

    def _write_checkpoint(self, random, path):
        state, kind = (
            dict(self.state),
            random.choice(["cfg", "cfg", "cfg", "model", "weights", "state", "pickle", "bytes"]),
        )
        if kind == "bytes":
            path.write_bytes(damaged(self.shop.checkpoint.read_bytes(), random))
            return
        if kind == "cfg":
            state["cfg"] = edited(state["cfg"], random)
        elif kind == "model":
            cfg = state["cfg"] = dict(state["cfg"])
            layers = "__import__('os').system('true') or [(512, 10, 5)]"
            cfg["model"] = {**cfg["model"], "_name": random.choice(MODELS), "conv_feature_layers": layers}
            if random.random() < 0.5:
                cfg["task"] = {**cfg["task"], "_name": random.choice(TASKS)}
        elif kind == "weights":
            state["model"] = edited_tensors(state["model"], random)
        elif kind == "state":
            small = {key: value for key, value in state.items() if key not in ("model", "cfg", "last_optimizer_state")}
            state = {key: state[key] for key in ("model", "cfg", "last_optimizer_state")} | edited(small, random)
        else:
            state[random.choice(["extra", "model", "cfg", "task_state"])] = Payload()
            if random.random() < 0.3:
                path.write_bytes(
                    pickle.dumps(random.choice([state["extra"] if "extra" in state else Payload(), Payload()]))
                )
                return
        torch.save(state, path, _use_new_zipfile_serialization=random.random() < 0.8)

    def table(self, random):
        lines = [line.split(",") for line in (self.shop.folder / "labels.csv").read_text().splitlines()]
        if random.random() < 0.5:
            lines[0].append("split")
            for number, line in enumerate(lines[1:]):
                line.append("valid" if number % 5 == 0 else "train")
        for _ in range(random.choice([1, 1, 3])):
            line = random.choice(lines[1:] + lines[:1])
            line[random.randrange(len(line))] = random.choice(NAMES + [str(value)[:500] for value in ODD])
        text = "\n".join(",".join(line) for line in lines) + "\n"
        data = text.encode("utf-8", "surrogatepass")
        table = self.folder / "labels.csv"
        table.write_bytes(damaged(data, random) if random.random() < 0.2 else data)
        clips = self.shop.data / "clips"
        if random.random() < 0.15:
            return self._command("crossval", table, clips, "--mode", "logmel", "--out", self.out)
        return self._command("manifest", clips, "--labels", table, "--dest", self.out)


def edited_tensors(weights, random):
    """A state dict with one odd tensor."""
    weights = dict(weights)
    name = random.choice(sorted(weights))
    value = weights[name]
    odd = [
        torch.zeros(1).expand(10**9),
        torch.zeros(0),
        torch.full_like(value, float("nan") if value.is_floating_point() else -1),
        value.to(torch.complex64),
        value.to(torch.int8),
        value.flatten(),
        value[None],
        torch.zeros(3, 4).to_sparse(),
        value.tolist(),
        None,
        "x",
        Payload(),
    ]
    kind = random.choice(["odd", "odd", "odd", "remove", "rename", "more"])
    if kind == "odd":
        weights[name] = random.choice(odd)
    elif kind == "remove":
        del weights[name]
    elif kind == "rename":
        weights[random.choice([*NAMES, 3])] = weights.pop(name)
    else:
        weights["encoder.more"] = torch.zeros(3)
    return weights
