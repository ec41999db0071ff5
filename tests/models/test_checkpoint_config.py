"""What of a checkpoint's configuration is used to build its model."""

import pytest

from bridle_fairseq.models.checkpoint_config import rebuilt_config
from bridle_fairseq.utils.errors import InputError


@pytest.mark.parametrize(
    ("task", "pixels"),
    [
        ({"num_frames": 4096}, "height 224 and width 224 and frames 4096"),  # the side of the task's default
        ({"image_size": 8192}, "height 8192 and width 8192 and frames 16"),
        ({"image_size": 224, "num_frames": 2000}, "height 224 and width 224 and frames 2000"),
    ],
)
def test_inputs_have_a_bounded_number_of_pixels(task, pixels) -> None:
    cfg = {"model": {"_name": "bridle"}, "task": {"_name": "bridle_pretraining", **task}}
    with pytest.raises(InputError, match=rf"x\.pt: {pixels}; expected a product of at most 67108864"):
        rebuilt_config("x.pt", "bridle", cfg, {})


def test_folders_and_unknown_settings_are_left_out() -> None:
    cfg = {
        "model": {"_name": "bridle", "encoder_width": 32, "unknown": 1},
        "task": {"_name": "bridle_pretraining", "data": "/elsewhere", "num_frames": 8},
        "common": {"user_dir": "/elsewhere", "fp16": True},
    }
    rebuilt = rebuilt_config("x.pt", "bridle", cfg, {"seed": 5})
    assert rebuilt.common == {"seed": 1, "fp16": True, "bf16": False}
    assert dict(rebuilt.model) == {"_name": "bridle", "encoder_width": 32}
    assert dict(rebuilt.task) == {"_name": "bridle_pretraining", "num_frames": 8, "seed": 5}
