"""The scripts of examples/ray without a cluster: how inputs are divided, a worker by itself, mistakes.

tests/adapters/test_ray.py runs them on a cluster.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
import tarfile
from argparse import Namespace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bridle_fairseq import pretrained
from bridle_fairseq.utils.errors import InputError

pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "ray"
NAMES = ("blocks", "cluster", "embed", "tokenize_clips")


@pytest.fixture
def scripts(monkeypatch):
    """The modules, as they are imported when a script of the folder runs."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield Namespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        del sys.modules[name]


@pytest.fixture
def arguments(scripts, exported, tmp_path):
    """``arguments(script, sources, ...)``: a parsed command line."""

    def parse(*sources, **more):
        (tmp_path / "out").mkdir(exist_ok=True)
        args = scripts.cluster.script_parser("").parse_args(
            [*map(str, sources), "--model", str(exported / "all"), "--out", str(tmp_path / "out")]
        )
        own = {"layers": ["last"], "pooling": ["mean"], "chunk_seconds": None, "overlap_seconds": None}
        return Namespace(**vars(args) | own | {"segment_seconds": None} | more)

    return parse


def sound(number: int, kind: str = "WAV") -> tuple[np.ndarray, bytes]:
    """Samples in 16 bits and the content of a file with them."""
    samples = (0.1 * np.random.default_rng(number).standard_normal(3000 + 999 * number)).clip(-1, 1)
    file = BytesIO()
    soundfile.write(file, samples, 16000, format=kind, subtype="PCM_16")
    return soundfile.read(BytesIO(file.getvalue()), dtype="float32")[0], file.getvalue()


def batch_of(block) -> dict[str, np.ndarray]:
    """A block as Ray Data gives it to a worker."""
    return {name: np.array([value]) for name, value in block._asdict().items()}


def test_python_keeps_its_own_modules() -> None:
    """A script's folder is searched before the standard library: a file tokenize.py would break every script there."""
    assert not {path.stem for path in EXAMPLES.glob("*.py")} & set(sys.stdlib_module_names)


@pytest.mark.parametrize("kind", ["struct", "binary", "large_binary"])
def test_media_in_parquet(scripts, arguments, exported, tmp_path, kind) -> None:
    waves, contents = zip(*[sound(n, ("WAV", "FLAC")[n % 2]) for n in range(5)], strict=True)
    values = [*contents, b"no sound", None]
    if kind == "struct":  # as in Hugging Face data sets; the last but one has no path
        values = [{"bytes": v, "path": f"{n}.x" if n != 5 else None} for n, v in enumerate(values)]
        column = pyarrow.array(values)
    else:
        column = pyarrow.array(values, getattr(pyarrow, kind)())
    table = pyarrow.table({"text": ["a"] * 7, "sound": column})
    path = tmp_path / "x.parquet"
    parquet.write_table(table, path, row_group_size=3)
    blocks, media, _ = scripts.blocks.plan([str(path)], None)
    assert [(block.group, block.first, block.stop) for block in blocks] == [(0, 0, 3), (1, 3, 6), (2, 6, 7)]
    embedder = scripts.embed.Embedder(arguments(path), "audio", media)
    tokenizer = scripts.tokenize_clips.Tokenizer(arguments(path), "audio", media)
    model, skipped, rows = pretrained.load(exported / "all"), [], []
    for block in blocks:
        (vectors, bad), (codes, also_bad) = embedder.make(block), tokenizer.make(block)
        assert bad == also_bad and vectors["file"] == codes["file"]
        skipped += bad
        columns = [vectors["file"], vectors["row"], vectors["embedding"], codes["codes"]]
        rows += zip(*(column.to_pylist() for column in columns), strict=True)
    assert [row for _, row, *_ in rows] == list(range(5))
    for file, row, vector, own_codes in rows:
        assert file == f"{path}/{row}.x" if kind == "struct" else f"{path}/{row}"
        expected = model.embed([waves[row]], 16000)[0]
        np.testing.assert_allclose(vector, expected.numpy(), rtol=0, atol=1e-5)
        np.testing.assert_array_equal(own_codes, model.codes([waves[row]], 16000).codes.flatten())
    assert [name for name, _ in skipped] == [f"{path}/5", f"{path}/6.x" if kind == "struct" else f"{path}/6"]
    assert "no bytes in column sound, row 6" in skipped[1][1]


def test_a_block_without_a_usable_file_has_no_rows(scripts, arguments, tmp_path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("a.wav")
        member.size = 3
        tar.addfile(member, BytesIO(b"no."))
    args = arguments(tmp_path / "x.tar")
    embedder = scripts.embed.Embedder(args, "audio", None)
    columns = batch_of(scripts.blocks.Block(0, *args.sources, 0, 0, 0))
    assert embedder(columns) == {"error": [""], "stop": [False]}
    stored = parquet.read_table(scripts.cluster.block_path(args.out, 0))
    assert (len(stored), str(stored.schema.field("embedding").type)) == (0, "fixed_size_list<element: float>[32]")
    args.max_skipped = 0.0
    assert scripts.cluster.report(args, [scripts.blocks.Block(0, *args.sources, 0, 0, 0)], 1) == 1
    assert (Path(args.out) / "_skipped.tsv").read_text().splitlines()[1].startswith(f"{tmp_path}/x.tar/a.wav\t")


def test_a_block_that_is_there_is_left(scripts, arguments, tmp_path) -> None:
    args = arguments(tmp_path / "none.tar")
    Path(scripts.cluster.block_path(args.out, 0)).write_text("as it was")
    worker = scripts.cluster.Worker(args, "audio", None)  # cannot compute
    columns = batch_of(scripts.blocks.Block(0, *args.sources, 0, 0, 0))
    assert worker(columns) == {"error": [""], "stop": [False]}
    assert Path(scripts.cluster.block_path(args.out, 0)).read_text() == "as it was"


def test_a_full_disk_stops_the_run_and_a_damaged_archive_does_not(scripts, arguments, tmp_path, monkeypatch) -> None:
    (tmp_path / "x.tar").write_bytes(b"no archive" * 100)
    worker = scripts.cluster.Worker(arguments(tmp_path / "x.tar"), "audio", None)
    columns = batch_of(scripts.blocks.Block(0, str(tmp_path / "x.tar"), 0, 0, 0))
    result = worker(columns)
    assert "x.tar: cannot read this archive" in result["error"][0] and result["stop"] == [False]

    def full(block):
        raise OSError(28, "No space left on device", "000000.parquet")

    monkeypatch.setattr(worker, "make", full)
    result = worker(columns)
    assert "000000.parquet: No space left on device" in result["error"][0] and result["stop"] == [True]
    monkeypatch.setattr(worker, "make", lambda block: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker(columns)


def test_a_file_of_others_in_place_of_a_block_is_named(scripts, arguments, tmp_path) -> None:
    args = arguments(tmp_path / "none.tar")
    block = scripts.blocks.Block(0, *args.sources, 0, 0, 0)
    parquet.write_table(pyarrow.table({"a": [1]}), scripts.cluster.block_path(args.out, 0))
    with pytest.raises(InputError, match=r"000000\.parquet: not of this script; expected a block, or no such file"):
        scripts.cluster.report(args, [block], 0)
    Path(scripts.cluster.block_path(args.out, 0)).write_text("no parquet")
    with pytest.raises(InputError, match=r"000000\.parquet: cannot read this parquet file: "):
        scripts.cluster.report(args, [block], 0)


@pytest.fixture
def inputs(tmp_path) -> Path:
    for name in ("a.tar", "b.parquet", "c.tar.gz", "d.wav", "e.zip"):
        (tmp_path / name).write_bytes(b"nothing")
    (tmp_path / "none").mkdir()
    (tmp_path / "x.tsv").write_text(f"{tmp_path}\nd.wav\t7\n")
    (tmp_path / "missing.tsv").write_text(f"{tmp_path}\nd.wav\t7\nnot there.wav\t7\n")
    parquet.write_table(pyarrow.table({"text": ["a"], "n": [1]}), tmp_path / "text.parquet")
    parquet.write_table(pyarrow.table({"left": [b"a"], "right": [b"a"]}), tmp_path / "two.parquet")
    parquet.write_table(pyarrow.table({"left": pyarrow.array([], pyarrow.binary())}), tmp_path / "empty.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "column", "sentence"),
    [
        (["x.tsv", "a.tar"], None, r"a\.tar: expected one manifest, or files of one kind, \.tar or \.parquet"),
        (["x.tsv", "missing.tsv"], None, "expected one manifest"),
        (["missing.tsv"], None, r"missing\.tsv, line 3: no such file: .*not there\.wav"),
        (["none"], None, r"none: no \.tar or \.parquet file in this folder; list other files with bridle manifest"),
        (["no.tar"], None, r"no\.tar: no such file"),
        (["c.tar.gz"], None, r"c\.tar\.gz: a compressed archive; expected \.tar, whose files have offsets"),
        (["d.wav"], None, r"d\.wav: expected a manifest \.tsv, \.tar or \.parquet files, or a folder of these"),
        (["b.parquet"], None, r"b\.parquet: cannot read this parquet file: "),
        (["text.parquet"], None, r"text\.parquet: columns text, n; expected one with encoded files"),
        (["two.parquet"], None, "--column chooses among left, right"),
        (["two.parquet"], "middle", "columns left, right; expected 'middle' with encoded files"),
        (["empty.parquet"], None, r"empty\.parquet: no rows"),
    ],
)
def test_inputs_that_cannot_be_read_are_named(scripts, inputs, sources, column, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        scripts.blocks.plan([str(inputs / source) for source in sources], column)


def test_a_folder_has_the_files_of_all_levels(scripts, inputs) -> None:
    for name in ("none/b/2.tar", "none/1.tar"):
        (inputs / name).parent.mkdir(exist_ok=True)
        (inputs / name).write_bytes(b"x" * len(name))
    blocks, media, before = scripts.blocks.plan([str(inputs / "none")], None)
    assert [os.path.relpath(block.source, inputs) for block in blocks] == [
        "none/1.tar",
        "none/b/2.tar",
    ] and media is None
    (inputs / "none/1.tar").write_bytes(b"changed")
    assert scripts.blocks.plan([str(inputs / "none")], None)[2] != before


def test_settings_are_compared(scripts, tmp_path) -> None:
    keep = scripts.cluster.keep_settings
    keep(str(tmp_path), {"a": [1, 2], "b": "x"})
    keep(str(tmp_path), {"a": (1, 2), "b": "x"})
    with pytest.raises(InputError, match=r"_settings\.json: a \[1, 2\]; expected \[3\], or another --out"):
        keep(str(tmp_path), {"a": [3], "b": "x"})
    (tmp_path / "_settings.json").write_text("{")
    with pytest.raises(InputError, match=r"_settings\.json: damaged"):
        keep(str(tmp_path), {"a": 1})
    (tmp_path / "_settings.json").unlink()
    (tmp_path / "0.parquet").touch()
    with pytest.raises(InputError, match=r"parquet files without _settings\.json; expected a new folder"):
        keep(str(tmp_path), {"a": 1})


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"actors": 0}, "--actors is 0 and --gpus 0; expected at least 1 and 0"),
        ({"batch_size": 0}, "--batch-size is 0; expected at least 1"),
        ({"layers": ["3"]}, "--layers has '3'; expected numbers from 1 to 2, all, or last"),
        ({"model": "nothing"}, "nothing"),
    ],
)
def test_wrong_arguments_are_said_before_anything_starts(scripts, arguments, inputs, more, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        scripts.embed.run(arguments(inputs / "x.tsv", **more))
    assert not list((inputs / "out").iterdir())


def test_without_pyarrow_the_sentence_says_so(monkeypatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit, match=r"needs pyarrow; install it: pip install 'bridle_fairseq\[parquet\]'"):
        importlib.import_module("embed")


def test_without_ray_the_sentence_says_so(scripts, arguments, inputs, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"this script needs Ray .*install it: pip install 'ray\[data\]'"):
        scripts.embed.run(arguments(inputs / "x.tsv"))


def test_commands_of_the_page(scripts) -> None:
    page = (EXAMPLES.parents[1] / "docs" / "scaling.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^python examples/ray/.*", page, re.MULTILINE)]
    assert [Path(script).stem for _, script, *_ in commands] == ["embed", "tokenize_clips"]
    for _, script, *options in commands:
        assert (EXAMPLES.parents[1] / script).is_file()
        assert scripts.cluster.script_parser("").parse_args(options).out.startswith("/runs/")
