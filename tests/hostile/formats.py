"""Small valid files of all formats that the package reads, and their readers.

``write_all(folder)`` writes a folder for each format of :data:`READERS`. A file of it is then damaged by mutations.py,
and the reader has to succeed or raise InputError, quickly and without memory. The soak and the tests use both.
"""

import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from bridle_fairseq import pretrained
from bridle_fairseq.data.artifacts.codes import CachedCodes, CodesInfo, CodesJob, write_info
from bridle_fairseq.data.artifacts.features import CachedFeatures, FeatureArray, FeaturesInfo, FeaturesJob
from bridle_fairseq.data.artifacts.indexed import write_index
from bridle_fairseq.data.artifacts.sharding import BlockResult
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.manifests.transcripts import Transcripts, Vocabulary
from bridle_fairseq.demo.run import _listed, _stored, duration_text
from bridle_fairseq.evaluation.classification import evaluate, write_tables
from bridle_fairseq.evaluation.probe_table import ProbeRow, write
from bridle_fairseq.exported.format import ExportedBridle
from bridle_fairseq.nn.classifier import Classifier
from bridle_fairseq.nn.ctc import Transcriber
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.prepare.scan import FoundFile, Scan, list_source
from bridle_fairseq.prepare.siblings import sibling_entries
from bridle_fairseq.prepare.table_paths import report_missing
from bridle_fairseq.prepare.tables import match, read_table
from bridle_fairseq.report import run
from bridle_fairseq.report.compare import comparison
from bridle_fairseq.report.finetuning import finetuning_page
from bridle_fairseq.report.sections import curves
from bridle_fairseq.training import fold_runs, fold_summary
from bridle_fairseq.training.crossval import _check_settings
from bridle_fairseq.units import sentencepiece
from bridle_fairseq.units.convert import UnitOptions
from bridle_fairseq.units.files import read_rows
from bridle_fairseq.units.info import read_units_info
from bridle_fairseq.units.scheme import to_characters
from bridle_fairseq.units.sharding import UnitsJob, make_units

ROWS, K, C, HASH = 6, 2, 12, "a" * 64
SIZES = {"encoder_width": 8, "encoder_depth": 1, "encoder_heads": 2, "decoder_width": 8, "decoder_depth": 1}
SIZES |= {"decoder_heads": 2, "tokenizer_depth": 1, "estimator_depth": 1, "codebook_dim": 4, "codebook_size": C}
SIZES |= {"num_codebooks": K, "num_mel_bins": 16, "patch_size": [8, 8]}
GRID = {"frequency_patches": 4, "patch_frames": 8, "segment_samples": 8000, "min_segment_samples": 1}
GRID |= {"patches_per_segment": 24, "sample_rate": 16000}


def write_all(folder):
    """Write a folder with valid files for each format."""
    folder = Path(folder)
    for name in READERS:
        (folder / name).mkdir(parents=True)
        manifest = Manifest("", [f"clip {row}.wav" for row in range(ROWS)], [8000] * ROWS)
        manifest.write(folder / name / "m.tsv")
        WRITERS.get(name, lambda *_: None)(folder / name, manifest)


def _export(
    folder, _, parts=("encoder", "tokenizer"), make=lambda s: ExportedBridle(s, ("encoder", "tokenizer")), **more
):
    settings = BridleSettings(**SIZES, decoder_window=[])
    weights = {name: value.contiguous().clone() for name, value in make(settings).state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"format": "bridle_fairseq", "format_version": 1, "bridle_fairseq": "0", "model": "bridle"}
    config |= {"modality": "audio", "sample_rate": 16000, "parts": list(parts), "settings": asdict(settings)}
    (folder / "config.json").write_text(json.dumps({**config, "checkpoint_sha256": HASH, **more}))


def _classifier(folder, _):
    classes = {"ids": ["/m/0", "/m/1"], "names": ["dog", "sea"]}
    more = {"pooling": "frequency", "multi_label": False, "classes": classes}
    _export(folder, _, ["classifier"], lambda s: Classifier(s, 2, "frequency"), **more)


def _transcriber(folder, _):
    more = {"pooling": "mean", "upsample": 2, "labels": "ltr", "symbols": ["<s>", "<pad>", "</s>", "<unk>", "|", "A"]}
    _export(folder, _, ["transcriber"], lambda s: Transcriber(s, 6, "mean", 2), **more)


def _codes_info(manifest):
    return CodesInfo(K, C, GRID, HASH, manifest.fingerprint())


def _codes(folder, manifest):
    sizes = [8 * K] * (ROWS - 1) + [0]
    (folder / "s.codes.bin").write_bytes((np.arange(sum(sizes)) % C).astype("<u2").tobytes())
    write_index(str(folder / "s.codes"), sizes, np.uint16)
    write_info(folder / "s.codes", _codes_info(manifest))


def _features_job(folder, manifest):
    grid = {"sample_rate": 16000, "frequency_patches": 4, "patch_frames": 8, "chunk_patches": 6, "overlap_patches": 1}
    arrays = (FeatureArray("encoder", "mean", 1, 8), FeatureArray("encoder", "patches", 1, 8))
    return FeaturesJob(
        folder / "s.features", FeaturesInfo(arrays, "float32", grid, HASH, manifest.fingerprint()), manifest
    )


def _features(folder, manifest):
    job, sizes = _features_job(folder, manifest), np.array([8] * (ROWS - 1) + [0])
    values = {"mean.layer1": np.ones((ROWS, 8), np.float32), "patches.layer1": np.ones((sizes.sum(), 8), np.float32)}
    job.write(0, BlockResult({**values, "sizes": sizes}, [(ROWS - 1, "no sound")]))
    job.join()


def _units(folder, manifest, **options):
    _codes(folder, manifest)
    codes = CachedCodes(folder / "s.codes")
    job = UnitsJob(folder / "s.units", codes, UnitOptions(**options).describe(codes))
    make_units(job, job.missing())
    job.join()
    for path in folder.glob("s.codes.*"):
        path.unlink()


def _pieces(folder, manifest):
    _codes(folder, manifest)
    codes = CachedCodes(folder / "s.codes")
    model = sentencepiece.train_on_units([to_characters(np.arange(40) % (K * C))] * 9, K * C + 9, K * C)
    (folder / "p.model").write_bytes(model)
    sentencepiece.write_description(folder / "p.model", UnitOptions(format="text").describe(codes))
    _units(folder, manifest, format="text")


def _labels(folder, _):
    classes = Classes(["/m/0", "/m/1"], ["dog", "sea, calm"])
    classes.write(folder / "labels.csv")
    Labels([[0], [1], [0, 1], [], [1], [0]], classes).write(folder / "s.lbl")


def _transcripts(folder, _):
    Vocabulary.write(folder, "ltr", {"|": 9, "A": 5, "B": 4})
    (folder / "s.ltr").write_text("A B |\n" * ROWS)


def _skipped(folder, manifest):
    log = SkipLog(manifest, folder / "skipped.tsv")
    log.add(1, "no sound")
    log.add(3, "cut off")


def _code_blocks(folder, manifest):
    job = CodesJob(folder / "s.codes", _codes_info(manifest), manifest)
    arrays = {"codes": np.zeros(8 * K * ROWS, np.uint16), "sizes": np.full(ROWS, 8 * K), "energy": np.ones(K)}
    job.write(0, BlockResult(arrays, [(0, "cut off")]))


def _run_of_training(folder, _):
    lines = []
    for update in (2, 4, 6):
        values = {"loss": "1.5", "accuracy": 0.5, "acc_1": "0.2", "lr": "0.01", "num_updates": f"{update}"}
        for kind, prefix in (("train_inner", ""), ("valid", "valid_")):
            named = json.dumps({prefix + name: value for name, value in values.items()})
            lines.append(f"[2025-01-01 10:00:{update:02},000][{kind}][INFO] - {named}\n")
    (folder / "hydra_train.log").write_text("".join(lines))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("checkpoint:\n  save_dir: .\nlr: [0.1]\n")
    (folder / "checkpoint_last.pt").write_text("")
    classes = Classes(["/m/0", "/m/1"], ["dog", "=sea, calm"])
    write_tables(folder, "valid", evaluate(np.eye(2)[[0, 1, 1]], np.array([0, 0, 1])), classes)


def _folds(folder, _):
    rows = [ProbeRow("encoder", "mean", probe, 8, {"C": 1.0}, 0.5, 0.25, None, {}) for probe in ("linear", "knn")]
    write(rows, {"fold": "1", "checkpoint_sha256": HASH}, folder, "result")
    (folder / "settings.json").write_text(json.dumps({"mode": "probe", "layers": ["all"], "seed": 1}))


def _demo(folder, _):
    settings = {"modality": "audio", "seed": 1}
    (folder / "demo.json").write_text(json.dumps({"settings": settings, "seconds": {"media": 1.5, "page": 2.0}}))


WRITERS = {
    "run of training": _run_of_training,
    "results of folds": _folds,
    "demo": _demo,
    "export": _export,
    "classifier": _classifier,
    "transcriber": _transcriber,
    "codes": _codes,
    "features": _features,
    "units as numbers": lambda *a: _units(*a, format="km", dedup=True),
    "units as text": lambda *a: _units(*a, format="text", dedup=True, layout="flattened"),
    "units for fairseq": lambda *a: _units(*a, format="fairseq", level="2"),
    "pieces": _pieces,
    "labels": _labels,
    "transcripts": _transcripts,
    "skipped rows": _skipped,
    "blocks of codes": _code_blocks,
}


def _read_codes(folder):
    codes = CachedCodes(folder / "s.codes", Manifest.read(folder / "m.tsv"))
    for row in range(len(codes)):
        codes.segment_codes(row, 0)


def _read_features(folder):
    features = CachedFeatures(folder / "s.features", Manifest.read(folder / "m.tsv"))
    for array in features.info.arrays:
        np.asarray(features[array.name]).sum()
        if array.pooling == "patches":
            [features.patches(array.name, row) for row in range(ROWS)]


def _read_pieces(folder):
    info = read_units_info(folder / "s.units")
    model = sentencepiece.load_matching(folder / "p.model", "s.units.json", info)
    model.encode(to_characters(np.arange(K * C)))


def _read_model(folder):
    model = pretrained.load(folder)
    clip = torch.zeros(1, 4000)
    if "encoder" in model.parts:
        model.embed(clip, 16000)
    if "tokenizer" in model.parts:
        model.codes(clip, 16000)
    if "classifier" in model.parts:
        model.classify(clip, 16000)
    if "transcriber" in model.parts:
        model.transcribe(clip, 16000)


def _read_transcripts(folder):
    vocabulary = Vocabulary.read(folder, "ltr")
    transcripts = Transcripts.read(folder / "s.ltr", Manifest.read(folder / "m.tsv"), vocabulary)
    [transcripts[row] for row in range(len(transcripts))]


def _read_skipped(folder):
    log = SkipLog(Manifest.read(folder / "m.tsv"), folder / "skipped.tsv", start=0)
    log.add(len(log.manifest) - 1, "silence")
    log.entries()
    log.check(max_ratio=1.0)


def _join_blocks(folder):
    manifest = Manifest.read(folder / "m.tsv")
    job = CodesJob(folder / "s.codes", _codes_info(manifest), manifest)
    job.skipped()
    job.join()


def _read_manifest(folder):
    manifest = Manifest.read(folder / "m.tsv")
    manifest.fingerprint()
    manifest.check_files()


def _read_labels(folder):
    Labels.read(folder / "s.lbl", Manifest.read(folder / "m.tsv"), Classes.read(folder / "labels.csv")).counts()


def _read_units(folder):
    list(read_rows(folder / "s.units"))


def _read_run(folder):
    path, records = run._checkpoint(folder), run._records(folder)
    model = Classifier(BridleSettings(**SIZES, decoder_window=[]), 2, "mean")
    cfg = {"model": {}, "task": {}, "checkpoint": {"best_checkpoint_metric": "accuracy"}}
    found = run.Run(folder, "run", records, cfg, None, model, 6, path)
    finetuning_page(found)
    comparison([found, found])
    curves(records, [])


def _read_folds(folder):
    _check_settings({"mode": "probe"}, folder, overwrite=True)
    scores = {"1": fold_runs.read_scores(folder / "result.json")}
    fold_runs.is_fold(folder)
    fold_summary.write_summary({**scores, "2": scores["1"]}, folder, {})


def _read_demo(folder):
    settings, seconds = _stored(folder / "demo.json")
    _listed(settings)
    duration_text(sum(seconds.values()))


def _write_shard(folder, _):
    with tarfile.open(folder / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("clip 0.wav", "a" * 200 + ".wav", "clip 0.cls"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"cat"))
        link = tarfile.TarInfo("link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


def _read_shard(folder):
    listed = list_source(folder)
    files = [file for file in listed.files if file.ending == ".wav"]
    sibling_entries(Scan(listed.root, files, [1] * len(files), [], listed.files), "cls")


def _write_table(folder, _):
    (folder / "t.csv").write_text("file;label;split\nC:\\x\\clip 0.wav;cat;train\nC:\\x\\clip 1.wav;dog;valid\n")


def _read_table(folder):
    files = [FoundFile(f"clip {row}.wav", f"clip {row}.wav") for row in range(2)]
    entries = read_table(folder / "t.csv")
    scan = Scan(str(folder), files, [1, 1], [])
    matched = match(scan, entries)
    report_missing(entries, matched, scan, folder, 1.0)


READERS = {
    "tar shard": _read_shard,
    "table of labels": _read_table,
    "run of training": _read_run,
    "results of folds": _read_folds,
    "demo": _read_demo,
    "export": _read_model,
    "classifier": _read_model,
    "transcriber": _read_model,
    "codes": _read_codes,
    "features": _read_features,
    "units as numbers": _read_units,
    "units as text": _read_units,
    "units for fairseq": _read_units,
    "pieces": _read_pieces,
    "manifest": _read_manifest,
    "labels": _read_labels,
    "transcripts": _read_transcripts,
    "skipped rows": _read_skipped,
    "blocks of codes": _join_blocks,
}
WRITERS |= {"tar shard": _write_shard, "table of labels": _write_table}
