"""Features of a corpus: their files, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bridle_fairseq.data.artifacts.features import (
    CachedFeatures,
    FeatureArray,
    FeaturesInfo,
    FeaturesJob,
    read_features_info,
    write_description,
)
from bridle_fairseq.data.artifacts.sharding import BlockResult
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError

MANIFEST = Manifest("", ["a", "b", "c"], [100] * 3)
ARRAYS = (FeatureArray("encoder", "mean", 1, 2), FeatureArray("encoder", "patches", 1, 2))
AUDIO = {"sample_rate": 16000, "frequency_patches": 4, "patch_frames": 8, "chunk_patches": 6, "overlap_patches": 1}
VIDEO = {"patch_frames": 2, "patch_height": 8, "patch_width": 8, "image_size": 20, "valid_crop": 0.875, "columns": 3}
VIDEO |= {"patches_per_segment": 18, "num_frames": 4, "frame_stride": 2, "rows": 3}


def job_of(tmp_path, grid, sizes):
    info = FeaturesInfo(ARRAYS, "float32", grid, "a" * 64, MANIFEST.fingerprint())
    job = FeaturesJob(tmp_path / "s.features", info, MANIFEST)
    patches = np.arange(2 * sum(sizes), dtype=np.float32).reshape(-1, 2)
    means = np.ones((len(sizes), 2), np.float32)
    arrays = {"mean.layer1": means, "patches.layer1": patches, "sizes": np.array(sizes)}
    job.write(0, BlockResult(arrays, [(2, "no sound")]))
    return job


@pytest.mark.parametrize(("grid", "shape"), [(AUDIO, (2, 4, 2)), (VIDEO, (2, 3, 3, 2))])
def test_patches_have_the_axes_of_the_grid(tmp_path, grid, shape) -> None:
    size = int(np.prod(shape[:-1]))
    job = job_of(tmp_path, grid, [size, size, 0])
    job.join()
    features = CachedFeatures(tmp_path / "s.features", MANIFEST)
    assert features.patches("patches.layer1", 1).shape == shape and len(features.patches("patches.layer1", 2)) == 0
    assert features.patches("patches.layer1", 1).flat[0] == 2 * size and features.skipped == [(2, "no sound")]
    assert job.finished()  # what is stored describes the same grid
    FeaturesJob(tmp_path / "s.features", job.info, MANIFEST)  # and may be computed again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrays": [{**vars(ARRAYS[0]), "source": "../../x"}]}, r"arrays\[0\].source is '../../x'; expected a string"),
        ({"arrays": [{**vars(ARRAYS[0]), "more": "x"}]}, "more' is unknown"),
        ({"arrays": []}, "arrays is"),
        ({"dtype": "object"}, "dtype is 'object'; expected one of float16, float32"),
        ({"dtype": "float16"}, "float32 3x2; expected float16 3x2"),
        ({"rows": 10**9}, "1000000000 rows; expected 3"),
        ({"rows": -1}, "rows is -1"),
        ({"overlap_patches": 6}, "overlap_patches is 6; expected at least 0, and less than chunk_patches 6"),
        ({"frequency_patches": 5}, "offsets.npy: damaged"),
        ({"frequency_patches": 0}, "frequency_patches is 0"),
        ({"skipped": [[1, 2]]}, r"skipped\[0\]\[1\] is 2"),
        ({"skipped": [[1]]}, r"skipped\[0\] is \[1\]; expected two values"),
    ],
)
def test_edited_descriptions_are_refused(tmp_path, change, message) -> None:
    job_of(tmp_path, AUDIO, [8, 8, 0]).join()
    path = tmp_path / "s.features.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        CachedFeatures(tmp_path / "s.features", MANIFEST)


@pytest.mark.parametrize("offsets", [[0, 8, 4, 16], [0, 6, 10, 16], [-8, 0, 8, 16], [0, 8, 16, 24], [8, 8, 8, 16]])
def test_offsets_outside_of_the_patches_are_refused(tmp_path, offsets) -> None:
    job_of(tmp_path, AUDIO, [8, 8, 0]).join()
    np.save(tmp_path / "s.features.offsets.npy", np.array(offsets, np.int64))
    with pytest.raises(InputError, match=r"s\.features\.(offsets|patches\.layer1)\.npy: "):
        CachedFeatures(tmp_path / "s.features", MANIFEST)


@pytest.mark.parametrize(
    "arrays",
    [
        {"sizes": np.array([8, 8])},
        {"sizes": np.array([8, -8, 16])},
        {"sizes": np.array([8.0, 8.0, 0.0])},
        {"patches.layer1": np.ones((15, 2), np.float32)},
        {"mean.layer1": np.ones((3, 3), np.float32)},
        {"mean.layer1": np.ones((3, 2), np.int64)},
    ],
)
def test_blocks_that_cannot_be_right_are_refused(tmp_path, arrays) -> None:
    job = job_of(tmp_path, AUDIO, [8, 8, 0])
    good = {"mean.layer1": np.ones((3, 2), np.float32), "patches.layer1": np.ones((16, 2), np.float32)}
    job.write(0, BlockResult({**good, "sizes": np.array([8, 8, 0]), **arrays}, []))
    with pytest.raises(InputError, match=r"000000\.npz: damaged .*; remove it, and run the command again"):
        job.join()
    assert not (tmp_path / "s.features.json").exists()


def test_other_manifest_is_refused(tmp_path) -> None:
    job_of(tmp_path, AUDIO, [8, 8, 0]).join()
    with pytest.raises(InputError, match="of another manifest"):
        CachedFeatures(tmp_path / "s.features", Manifest("", ["a"], [100]))
    assert read_features_info(tmp_path / "s.features").rows == 3


def test_a_grid_field_named_like_another_field_is_an_error_of_the_program(tmp_path) -> None:
    info = job_of(tmp_path, AUDIO, [8, 8, 0]).info
    for name in ("version", "skipped"):
        with pytest.raises(AssertionError, match=name):
            write_description(tmp_path / "s.features", replace(info, grid={**AUDIO, name: 1}), 3, [])
