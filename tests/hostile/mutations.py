"""Mutations of the files that formats.py writes. ``mutate(folder, random)`` damages one file of a format's folder."""

import importlib.util
import json
import pickle
import struct
from pathlib import Path

_spec = importlib.util.spec_from_file_location("soak_mutate", Path(__file__).parents[1] / "soak" / "mutate.py")
general = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(general)

WORDS = ("clip", "x.zip:10:20", "", "a\x00b", "é", "../up", "/abs", "=1+1", "a,b", '"a', "a b", "|", "<s>", "²", "٣")
NUMBERS = ("0", "-1", "1", "9", "9" * 19, "9" * 400, "9" * 5000, str(2**63), "1e9", "nan", "1.5", "0x10", "1_0", " 1")
ODD_BYTES = (b"\xff", b"\xed\xa0\x80", b"\x00", b"\r", b"\t", b"\n", b"\xef\xbb\xbf", "\u2028".encode(), b"x" * 200_000)


class Opened:
    """Unpickled, it raises what no reader may raise."""

    def __reduce__(self):
        return exec, ("raise AssertionError('a pickle was executed')",)


def mutate(folder, random):
    """Damage one file of a format's folder; what was done, for messages."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("dict.km"))
    path = random.choice([*paths, *(path for path in paths if path.suffix == ".json")])
    data = path.read_bytes()
    mutation = random.choice([general.damaged, *MUTATIONS.get(path.suffix, [text])])
    path.write_bytes(mutation(data, random))
    return f"{mutation.__name__} of {path.name}"


def json_values(data, random):
    """Odd values in a JSON file, or text that is no JSON."""
    return general.edited_json(data.decode(), random)


def text(data, random):
    """Odd words, numbers and bytes in a text file."""
    for _ in range(random.choice([1, 1, 3])):
        lines = data.split(b"\n")
        number = random.randrange(len(lines))
        words = lines[number].replace(b"\t", b" ").split(b" ")
        word = random.choice([random.choice(WORDS).encode(), random.choice(NUMBERS).encode(), random.choice(ODD_BYTES)])
        kind = random.choice(["word", "word", "insert", "line", "none", "twice", "tabs"])
        if kind == "word":
            old = random.choice(words)
            lines[number] = lines[number].replace(old, word, 1) if old else word
        elif kind == "insert":
            at = random.randrange(len(lines[number]) + 1)
            lines[number] = lines[number][:at] + word + lines[number][at:]
        elif kind == "line":
            lines[number] = word
        elif kind == "none":
            del lines[number]
        elif kind == "twice":
            lines.insert(number, lines[number])
        else:
            lines[number] = lines[number].replace(b" ", b"\t")
        data = b"\n".join(lines)
    return data


def numbers(data, random):
    """Other 8-byte or 4-byte numbers at one or two places of a binary file."""
    data, values = bytearray(data), [-1, 0, 1, 2**62, -(2**62), 2**31, 2**31 - 1, len(data), 65536, 12, 16]
    for _ in range(random.choice([1, 2])):
        size = random.choice([4, 8])
        at = random.randrange(max(1, len(data) - size))
        data[at : at + size] = struct.pack("<q", random.choice(values))[:size]
    return bytes(data)


def npy_header(data, random):
    """Another header of a .npy file; also one of pickled objects."""
    size = 10 + struct.unpack("<H", data[8:10])[0]
    fields = eval(data[10:size].decode("latin1"))  # our own header, of a dictionary
    if random.random() < 0.2:
        fields["descr"], data = "|O", data[:size] + pickle.dumps([Opened()] * 9)
    elif random.random() < 0.3:
        fields["descr"] = random.choice(["<f8", "<f2", "<i8", ">f4", "<U9999", "<c16", "|b1", "x", "<f4,<f4"])
    elif random.random() < 0.5:
        shape = fields["shape"]
        changes = [(10**12, *shape[1:]), (-1, *shape[1:]), (0, *shape[1:]), shape[::-1], (2**62, 4), (), shape * 9]
        fields["shape"] = random.choice(changes)
    else:
        fields = random.choice(
            [{**fields, "fortran_order": True}, {**fields, "more": 1}, {}, [[[]]], "(" * 900, "9" * 900]
        )
    header = (fields if isinstance(fields, str) else repr(fields)).encode("latin1")
    return data[:8] + struct.pack("<H", len(header)) + header + data[size:]


def tensors(data, random):
    """Another header of a safetensors file."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    name, other = random.choice(names), random.choice(names)
    entry = header[name]
    kind = random.choice(["shape", "dtype", "offsets", "same", "rename", "remove", "more", "any", "size"])
    if kind == "shape":
        entry["shape"] = random.choice([[10**12, 10**12], [2**62, 4], [-1], [], [0], [1] * 100, entry["shape"][::-1]])
    elif kind == "dtype":
        entry["dtype"] = random.choice(["F64", "I64", "I32", "BOOL", "X", "F16", "U8", "F8_E4M3"])
    elif kind == "offsets":
        entry["data_offsets"] = random.choice([[10**15, 10**15 + 4], [-4, 0], [4, 0], [0, 2**64]])
    elif kind == "same":
        header[name] = header[other]
    elif kind == "rename":
        header[random.choice(["../../x", "", "encoder.blocks.999.norm.weight", "é"])] = header.pop(name)
    elif kind == "remove":
        del header[name]
    elif kind == "more":
        header["more.weight"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    elif kind == "any":
        header = general.edited(header, random)
    content = json.dumps(header).encode()
    claimed = random.choice([0, 1, 2**63 - 1, 2**64 - 1, 100_000_000]) if kind == "size" else len(content)
    return struct.pack("<Q", claimed) + content + data[8 + size :]


MUTATIONS = {
    ".json": [json_values, json_values, json_values],
    ".safetensors": [tensors, tensors],
    ".npy": [npy_header, npy_header, numbers],
    ".idx": [numbers, numbers],
    ".bin": [numbers],
    ".npz": [numbers],
    ".model": [numbers],
}
