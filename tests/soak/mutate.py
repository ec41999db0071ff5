"""Random damage to bytes and to JSON."""

import copy
import json

BIG = [
    bytes.fromhex(word)
    for word in ("ffffffff 7fffffff ffffff7f 00000000 00000080 80000000 01000000 00000001 00001000".split())
]
ODD = [
    0,
    -1,
    1,
    2,
    10**9,
    2**31,
    2**63,
    -(10**9),
    1e308,
    float("nan"),
    float("inf"),
    3.5,
    True,
    None,
    "",
    "x",
    "../../x",
]
ODD += [
    "/x",
    "${env:SOAK_SECRET}",
    "${oc.env:SOAK_SECRET}",
    "__import__('os').system('true')",
    "9" * 400,
    "\x00",
    "\ud800",
]
ODD += [[], {}, [1] * 5, [10**9, 10**9], [[[]]], {"_target_": "os.system", "command": "true"}, {"x": [0]}]


def damaged(data, random):
    """Bytes with one kind of damage."""
    data = bytearray(data)
    size = len(data)
    if size < 8:
        return random.randbytes(random.choice([0, 1, 50]))
    kind = random.choice(
        ["flip", "flip", "cut", "head", "big", "big", "random", "fill", "insert", "delete", "move", "append"]
    )
    if kind == "flip":
        for _ in range(random.choice([1, 2, 5, 20, 100])):
            data[random.randrange(size)] ^= 1 << random.randrange(8)
    elif kind == "cut":
        del data[random.choice([0, 1, 4, 12, 40, random.randrange(size), random.randrange(size), size - 1]) :]
    elif kind == "head":
        for _ in range(random.choice([1, 3, 10])):
            data[random.randrange(min(size, 256))] = random.randrange(256)
    elif kind == "big":
        for _ in range(random.choice([1, 1, 2, 4])):
            at = random.randrange(min(size - 4, random.choice([64, 200, size])))
            data[at : at + 4] = random.choice(BIG)
    elif kind in ("random", "fill"):
        at, length = random.randrange(size), random.choice([16, 200, 4000])
        length = min(length, size - at)
        data[at : at + length] = (
            random.randbytes(length) if kind == "random" else random.choice([b"\0", b"\xff"]) * length
        )
    elif kind == "insert":
        at = random.randrange(size)
        data[at:at] = random.randbytes(random.choice([1, 7, 300]))
    elif kind == "delete":
        at = random.randrange(size)
        del data[at : at + random.choice([1, 7, 300])]
    elif kind == "move":
        a, b, length = random.randrange(size), random.randrange(size), random.choice([4, 64, 1000])
        data[a:a] = data[b : b + length]
    else:
        data += random.randbytes(random.choice([1, 1000]))
    return bytes(data)


def places(value, path=()):
    """Paths of all values in nested dictionaries and lists, of the first entries where there are many."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:60]:
        yield from places(inner, (*path, key))


def edited(value, random):
    """A copy of nested dictionaries and lists in which one to three values are odd, missing or of another name."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        *parents, last = random.choice([path for path in places(value) if path] or [("x",)])
        inner = value
        for key in parents:
            inner = inner[key]
        kind = random.choice(["odd", "odd", "odd", "odd", "delete", "rename", "scale", "swap"])
        if kind == "delete":
            del inner[last]
        elif kind == "rename" and isinstance(inner, dict):
            inner[random.choice(["x", "../x", "__class__", "_name", "settings"])] = inner.pop(last)
        elif kind == "scale" and isinstance(inner[last], int | float) and not isinstance(inner[last], bool):
            inner[last] = inner[last] * random.choice([-1, 2, 10, 1000, 10**6]) + random.choice([0, 1])
        elif kind == "swap":
            inner[last] = copy.deepcopy(random.choice(list(inner.values()) if isinstance(inner, dict) else inner))
        else:
            inner[last] = copy.deepcopy(random.choice(ODD))
    return value


def edited_json(text, random):
    """The text of a JSON file after an edit, or with damage that is no JSON."""
    if random.random() < 0.8:
        return json.dumps(edited(json.loads(text), random)).encode("utf-8", "surrogatepass")
    at = random.randrange(len(text))
    piece = random.choice(["", "}", "\x00", "9" * 5000, "[" * 100000, '{"a":' * 20000, "1e999", "NaN", "\\ud800"])
    return (text[:at] + piece + text[at + random.choice([0, 1, 50]) :]).encode()
