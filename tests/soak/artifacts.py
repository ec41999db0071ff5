"""Damaged and hostile files of the package's own formats, and tables."""

import json
import os
import pickle
import shutil
import struct

import torch
from mutate import ODD, damaged, edited, edited_json
from tally import Result
from watch import WatchedReader
from workshop import state_of

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
    """Edited exports, codes, features, units, checkpoints and tables, one kind after the other."""

    def __init__(self, shop):
        self.shop = shop
        self.folder = shop.fresh("case")
        self.out = self.folder / "out" / "x"
        self.reader = WatchedReader(shop, [self.folder / "out"])
        self.state = state_of(shop.checkpoint)
        self.kinds = (self.export, self.codes, self.features, self.units, self.checkpoint, self.checkpoint, self.table)

    def attempt(self, random):
        self.shop.fresh("case")
        make = random.choice(self.kinds)
        kind = make(random)
        result = self.reader.read(kind, self.folder)
        done = Result(problems=result.problems, megabytes=result.megabytes)
        done.tried["edits"] += 1
        done.tried["refused"] += result.tried["refused"]
        return done

    def close(self):
        self.reader.close()

    def _copy(self, name):
        for path in (self.shop.folder / name).iterdir():
            if path.is_file():
                shutil.copy(path, self.folder)

    def _damage(self, random, path):
        if path.suffix == ".json" and random.random() < 0.9:
            path.write_bytes(edited_json(path.read_text(), random))
        elif path.suffix == ".safetensors" and random.random() < 0.7:
            path.write_bytes(edited_weights(path.read_bytes(), random))
        elif path.suffix == ".idx" and random.random() < 0.5:
            path.write_bytes(edited_numbers(path.read_bytes(), random))
        elif path.suffix == ".npy" and random.random() < 0.5:
            path.write_bytes(edited_array(path.read_bytes(), random))
        elif random.random() < 0.03:
            path.unlink()
        else:
            path.write_bytes(damaged(path.read_bytes(), random))

    def _damage_one(self, random):
        files = sorted(path for path in self.folder.iterdir() if path.suffix != ".md")
        described = [path for path in files if path.suffix == ".json"]
        self._damage(random, random.choice(files + described * 2))

    def _command(self, *words):
        (self.folder / "command.json").write_text(json.dumps([str(word) for word in words]))
        return "command"

    def export(self, random):
        self._copy("export")
        self._damage_one(random)
        return "export"

    def codes(self, random):
        self._copy("tokenize")
        self._damage_one(random)
        if random.random() < 0.3:
            return self._command("units", self.folder / "big.codes", "--out", self.out)
        return "codes"

    def features(self, random):
        self._copy("features")
        self._damage_one(random)
        return "features"

    def units(self, random):
        self._copy("units")
        self._damage_one(random)
        return self._command("units", "--back", self.folder / "big.units", "--out", self.out)

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


def edited_weights(data, random):
    """A safetensors file with an edited header."""
    size = struct.unpack("<Q", data[:8])[0]
    header, tensors = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    name, other = random.choice(names), random.choice(names)
    kind = random.choice(["shape", "dtype", "offsets", "same", "rename", "remove", "more", "any", "size"])
    if kind == "shape":
        header[name]["shape"] = random.choice([[10**12, 10**12], [2**62, 4], [-1], [], [0], [1] * 100])
    elif kind == "dtype":
        header[name]["dtype"] = random.choice(["F64", "I64", "BOOL", "X", "F16", "U8", "F8_E4M3"])
    elif kind == "offsets":
        header[name]["data_offsets"] = random.choice([[10**15, 10**15 + 4], [-4, 0], [4, 0], [0, 2**64]])
    elif kind == "same":
        header[name] = header[other]
    elif kind == "rename":
        header[random.choice(NAMES)] = header.pop(name)
    elif kind == "remove":
        del header[name]
    elif kind == "more":
        header["more.weight"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    elif kind == "any":
        header = edited(header, random)
    text = json.dumps(header).encode()
    claimed = random.choice([0, 1, 2**63 - 1, 2**64 - 1, 100_000_000]) if kind == "size" else len(text)
    return struct.pack("<Q", claimed) + text + tensors


def edited_numbers(data, random):
    """A file of 8-byte numbers with one or two others."""
    data = bytearray(data)
    for _ in range(random.choice([1, 2])):
        at = random.randrange(max(1, len(data) - 8))
        data[at : at + 8] = struct.pack("<q", random.choice([-1, 0, 1, 2**62, -(2**62), 2**31, len(data), 65536]))
    return bytes(data)


def edited_array(data, random):
    """A .npy file with an edited header, or one that holds pickled objects."""
    header = data[10:128].decode("latin1")
    edits = [
        ("f", "O"),
        ("<f", ">f"),
        ("False", "True"),
        ("(", "(999999999, "),
        ("(", "(-"),
        ("<f4", "|O "),
        ("<f2", "<c8"),
    ]
    old, new = random.choice(edits)
    changed = header.replace(old, new, 1)[: len(header)].ljust(len(header)).encode("latin1")
    if random.random() < 0.2:
        return data[:10] + changed.replace(b"<f4", b"|O ") + pickle.dumps([Payload()] * 3)
    return data[:10] + changed + data[128:]


def edited_tensors(weights, random):
    """A state dict with one odd tensor."""
    weights = dict(weights)
    name = random.choice(sorted(weights))
    value = weights[name]
    odd = [
        torch.zeros(1).expand(10**9),
        torch.zeros(0),
        torch.full_like(value, float("nan")) if value.is_floating_point() else value - 10**9,
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
