"""examples/ray on a local cluster of two nodes: results of the commands, deaths on the way, runs that go on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from bridle_fairseq.cli.main import main
from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.manifests.manifest import Manifest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "ray"
PAGE = EXAMPLES.parents[1] / "docs" / "scaling.md"
SCRIPTS = {"embed": "embed.py", "tokenize": "tokenize_clips.py"}
CLIPS = 600  # three blocks of a manifest
SHARDS = 3
BROKEN = 7  # the clip that cannot be read

# A driver whose actor dies once, with half of a file written: alone, with its node, or with the driver.
DYING = """
import glob, os, signal, sys, time
sys.path.insert(0, {examples!r})
import embed, pyarrow.parquet, ray

ray.cloudpickle.register_pickle_by_value(embed)
DRIVER, WHO, NODE, LOG = os.getpid(), {who!r}, {node!r}, {log!r}


def on_node():
    return ray.get_runtime_context().get_node_id() == NODE


def dies(number, out):
    \"""Whether this is the process that dies: the first one that asks, in the right place.\"""
    if not (on_node() if WHO == "node" else glob.glob(out + "/*.parquet")):
        return False
    try:
        with open(LOG + ".died", "x") as file:
            print(number, os.getpid(), file=file)
        return True
    except FileExistsError:
        return False


def half_a_file(table, file):
    file.write(b"PAR1 half")
    file.flush()
    os.kill({{"driver": DRIVER, "node": os.getppid(), "actor": os.getpid()}}[WHO], signal.SIGKILL)
    time.sleep(600)


class Dying(embed.Embedder):
    def write(self, block, table, skipped):
        with open(LOG, "a") as file:
            print(block.number, os.getpid(), file=file)
        if dies(block.number, self.args.out):
            pyarrow.parquet.write_table = half_a_file
        super().write(block, table, skipped)
        while WHO == "node" and not os.path.exists(LOG + ".died"):
            time.sleep(0.05)  # leaves blocks to the other node


embed.Embedder = Dying
sys.exit(embed.main())
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of one CPU each, and the environment in which a script finds them."""
    pytest.importorskip("ray", reason="Ray is not installed: make adapters")
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    folders = [str(EXAMPLES.parents[1]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    path = os.pathsep.join(map(os.path.abspath, folders))  # scripts run in other folders
    settings = {
        "HOME": str(tmp_path_factory.mktemp("home")),  # Ray keeps a token of its clusters there
        "PYTHONPATH": path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_open_telemetry": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        options = {"num_cpus": 1, "object_store_memory": 100 << 20}
        cluster = Cluster(initialize_head=True, head_node_args=options | {"include_dashboard": False})
        second = cluster.add_node(**options)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield SimpleNamespace(cluster=cluster, second=second, options=options)
        cluster.shutdown()


def run(*command: object, code: int = 0, cwd: Path | None = None) -> SimpleNamespace:
    """What a script printed itself, without the log of Ray."""
    argv = [sys.executable, *map(str, command)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, cwd=cwd)
    assert done.returncode == code, done.stderr[-4000:]
    own = [line for line in done.stderr.splitlines() if "error: " in line]
    return SimpleNamespace(out=done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "", err=own)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Clips of different lengths, one of them damaged: as files with a manifest, in archives, in parquet files."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    import pyarrow

    folder, random = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    contents, sizes = [], []
    for number in range(CLIPS):
        length = 20000 if number % 50 == 0 else random.integers(1500, 4000)  # the first are longer than a chunk
        samples = 0.1 * random.standard_normal(int(length))
        file = BytesIO()
        soundfile.write(file, samples, (16000, 11025)[number % 2], format=("WAV", "FLAC")[number % 3 == 0])
        contents.append(b"no sound" if number == BROKEN else file.getvalue())
        sizes.append(len(samples))
    (folder / "wav").mkdir()
    names = [f"{number:04d}.wav" for number in range(CLIPS)]
    for name, content in zip(names, contents, strict=True):
        (folder / "wav" / name).write_bytes(content)
    Manifest(folder / "wav", names, sizes).write(folder / "train.tsv")
    for shard in range(SHARDS):
        chosen = range(shard * CLIPS // SHARDS, (shard + 1) * CLIPS // SHARDS)
        (folder / "tar").mkdir(exist_ok=True)
        with tarfile.open(folder / "tar" / f"{shard}.tar", "w") as tar:
            for number in chosen:
                for name, content in ((names[number], contents[number]), (f"{number:04d}.json", b"{}")):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
        (folder / "parquet").mkdir(exist_ok=True)
        values = [{"bytes": contents[number], "path": names[number]} for number in chosen]
        table = pyarrow.table({"label": list(chosen), "audio": values})
        parquet.write_table(table, folder / "parquet" / f"{shard}.parquet", row_group_size=120)
    return folder


@pytest.fixture(scope="module")
def expected(corpus, exported) -> SimpleNamespace:
    """What the commands give: name -> vector, and name -> codes."""
    model, out = str(exported / "all"), corpus / "expected"
    assert main(["embed", str(corpus / "train.tsv"), "--model", model, "--out", f"{out}/x.npy", "--workers", "1"]) == 0
    files = (out / "x.files.txt").read_text().splitlines()
    vectors = dict(zip(map(os.path.basename, files), np.load(out / "x.npy"), strict=True))
    assert main(["tokenize", model, str(corpus / "train.tsv"), "--out", str(out), "--workers", "1"]) == 0
    manifest = Manifest.read(corpus / "train.tsv")
    cached = CachedCodes(out / "train.codes", manifest)
    codes = {manifest.relative_path(row): cached.item(row) for row in range(len(manifest)) if cached.sizes[row]}
    assert len(vectors) == len(codes) == CLIPS - 1
    return SimpleNamespace(vectors=vectors, codes=codes, info=cached.info)


def results(out: Path) -> dict[str, np.ndarray]:
    """Name -> result."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(out)
    names = [os.path.basename(name) for name in table["file"].to_pylist()]
    assert len(set(names)) == len(names)
    return dict(zip(names, table.column(2).to_numpy(), strict=True))


def check_vectors(out: Path, expected, tolerance: float = 0) -> None:
    found = results(out)
    assert found.keys() == expected.vectors.keys()
    for name, vector in found.items():
        np.testing.assert_allclose(vector, expected.vectors[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("source", "blocks"), [("train.tsv", 3), ("tar", SHARDS), ("parquet", 6)])
@pytest.mark.parametrize("command", SCRIPTS)
def test_results_are_those_of_the_command(
    cluster, corpus, expected, exported, tmp_path, command, source, blocks
) -> None:
    script, out = EXAMPLES / SCRIPTS[command], tmp_path / "out"
    model = os.path.relpath(exported / "all", corpus)  # the present folder of an actor is another one
    arguments = [script, source, "--model", model, "--out", os.path.relpath(out, corpus), "--actors", 2]
    done = run(*arguments, cwd=corpus)
    assert done.out.startswith(f"{out}: {blocks} blocks, {blocks} of them new; {CLIPS - 1} files, 1 skipped")
    header, skipped = (out / "_skipped.tsv").read_text().splitlines()
    assert header == "file\treason" and re.search(rf"{BROKEN:04d}\.wav\t.*(sound|format)", skipped, re.IGNORECASE)
    if command == "embed":
        check_vectors(out, expected, 0 if source == "train.tsv" else 1e-5)
        return
    found, info = results(out), json.loads((out / "_settings.json").read_text())
    assert (info["num_codebooks"], info["grid"]) == (expected.info.num_codebooks, dict(expected.info.grid))
    assert found.keys() == expected.codes.keys()
    for name, codes in found.items():
        assert codes.dtype == np.uint8
        np.testing.assert_array_equal(codes.reshape(-1, info["num_codebooks"]), expected.codes[name])
    (python,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "pyarrow" in block
    ]
    variables: dict = {}
    exec(re.sub("/runs/(vectors|codes)", str(out), python), variables)
    np.testing.assert_array_equal(variables["codes"], expected.codes[os.path.basename(next(iter(found)))])


def write_dying(folder: Path, who: str, node: str = "") -> Path:
    """The driver, as a script; ``log`` gets a line for each block that is written, ``log.died`` that of the death."""
    text = DYING.format(examples=str(EXAMPLES), who=who, node=node, log=str(folder / "log"))
    (folder / "dying.py").write_text(text)
    return folder / "dying.py"


@pytest.mark.parametrize("who", ["actor", "node"])
def test_a_worker_that_is_killed_changes_nothing(cluster, corpus, expected, exported, tmp_path, who) -> None:
    out, script = tmp_path / "out", write_dying(tmp_path, who, cluster.second.node_id)
    done = run(script, corpus / "parquet", "--model", exported / "all", "--out", out, "--actors", 2)
    number, pid = (tmp_path / "log.died").read_text().split()
    writers = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines() if line.split()[0] == number]
    assert len(writers) == 2 and writers[0] == pid != writers[1]
    assert "6 blocks, 6 of them new" in done.out
    check_vectors(out, expected, 1e-5)
    if who == "actor":
        assert not list(out.glob(".*")), "the half of a file is left"
    else:  # there its process may live a little longer, and hold its temporary file
        cluster.cluster.remove_node(cluster.second, allow_graceful=False)
        cluster.second = cluster.cluster.add_node(**cluster.options)


def test_a_run_that_is_killed_goes_on(cluster, corpus, expected, exported, tmp_path) -> None:
    out = tmp_path / "out"
    arguments = [corpus / "parquet", "--model", exported / "all", "--out", out, "--actors", 2]
    run(write_dying(tmp_path, "driver"), *arguments, code=-9)
    time.sleep(2)  # Ray ends the actors of a driver that is gone
    before = {path.name: path.stat() for path in out.glob("*.parquet")}
    assert 0 < len(before) < 6 and list(out.glob(".*")), "whole files, and the half of one"
    done = run(EXAMPLES / "embed.py", *arguments)
    assert f"6 blocks, {6 - len(before)} of them new" in done.out and not list(out.glob(".*"))
    for name, status in before.items():
        now = (out / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (status.st_ino, status.st_mtime_ns), "computed again"
    check_vectors(out, expected, 1e-5)
    assert "6 blocks, 0 of them new" in run(EXAMPLES / "embed.py", *arguments).out
    (out / "000002.parquet").unlink()
    assert "6 blocks, 1 of them new" in run(EXAMPLES / "embed.py", *arguments).out
    other = run(EXAMPLES / "embed.py", *arguments, "--pooling", "statistics", code=2)
    assert len(other.err) == 1 and "_settings.json: embedding ['mean.layer2']; expected ['statistics" in other.err[0]


def test_a_damaged_archive_is_named_and_the_others_are_done(cluster, corpus, exported, tmp_path) -> None:
    (tmp_path / "tar").mkdir()
    for name in ("0.tar", "2.tar"):
        os.link(corpus / "tar" / name, tmp_path / "tar" / name)
    (tmp_path / "tar" / "1.tar").write_bytes(b"no archive" * 100)
    arguments = [tmp_path / "tar", "--model", exported / "all", "--out", tmp_path / "out", "--actors", 2]
    done = run(EXAMPLES / "embed.py", *arguments, code=2)
    assert len(done.err) == 1
    assert re.search(r"1 of 3 blocks failed: .*1\.tar: cannot read this archive", done.err[0])
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == ["000000.parquet", "000002.parquet"]


def test_actors_that_no_node_has_room_for(cluster, corpus, exported, tmp_path) -> None:
    arguments = [corpus / "train.tsv", "--model", exported / "all", "--out", tmp_path / "out", "--workers", 64]
    done = run(EXAMPLES / "embed.py", *arguments, code=2)
    assert "an actor needs 64 CPUs (--workers) and 0 GPUs (--gpus); the nodes have 1 CPUs, 0 GPUs" in done.err[0]
