"""Settings from files: exact types, bounds on both sides, and no setting without bounds."""

from dataclasses import asdict, fields

import pytest

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.settings import BridleSettings, check_settings, checked_settings
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.schema import Real, Whole, kinds_of

STRANGE = [-(10**9), -1, 10**9, 2**63, 1e308, float("nan"), "x", None, {}, [], True, 3.5, [10**9] * 2, [1] * 5, "${a}"]
DEFAULTS = asdict(BridleSettings())


def make(**changes) -> Bridle:
    return Bridle(BridleSettings(**{"codebook_size": 8, **changes}))


def test_defaults_are_those_of_earlier_versions() -> None:
    """A setting that a checkpoint or a configuration does not name has its default, so none of them may change."""
    base = {"modality": "audio", "sample_rate": 16000, "num_mel_bins": 128, "fbank_mean": -4.4446, "fbank_std": 3.3216}
    base |= {"pixel_mean": [0.485, 0.456, 0.406], "pixel_std": [0.229, 0.224, 0.225], "patch_size": [16, 16]}
    base |= {"encoder_width": 768, "encoder_depth": 12, "encoder_heads": 12}
    base |= {"decoder_width": 512, "decoder_depth": 16, "decoder_heads": 16, "decoder_kind": "attention"}
    base |= {"decoder_window": [4, 4], "tokenizer_depth": 12, "estimator_depth": 3}
    base |= {"num_codebooks": 4, "codebook_size": 256, "codebook_dim": 256, "codebook_metric": "euclidean"}
    base |= {"codebook_decay": 0.99, "codebook_init": "kmeans", "restart_threshold": 0.25, "restart_step": 0.2}
    base |= {"commitment_weight": 0.25, "codes_per_level": 1, "mask_ratio": 0.8, "num_masks": 1, "predict_share": 1.0}
    base |= {"masking": "random", "position_scale": 1.0, "tokenizer_init": "encoder", "latents": "standardize"}
    base |= {"teacher": "standardize", "precision": "float32", "codes_precision": "auto"}
    base |= {"num_books": 1, "target_norm": "none"}
    base |= {"checkpoint_activations": False, "compile": False}
    base |= {"stages": [{"kind": "encoder", "updates": 1000, "warmup_updates": 100}]}
    assert {name: DEFAULTS[name] for name in base} == base


def test_every_setting_has_bounds() -> None:
    assert list(kinds_of(BridleSettings)) == [field.name for field in fields(BridleSettings)]


BOUNDS = """
sample_rate: at least 100 and at most 1000000, a whole number
num_mel_bins: at least 1 and at most 4096, a whole number
fbank_mean: at least -1000 and at most 1000
fbank_std: more than 0 (`bridle stats` measures it)
encoder_width decoder_width codebook_dim: at least 1 and at most 32768, a whole number
encoder_depth decoder_depth tokenizer_depth estimator_depth: at least 1 and at most 1024, a whole number
encoder_heads decoder_heads num_codebooks num_books num_masks: at least 1 and at most 1024, a whole number
codebook_size: at least 2 and at most 65536, a whole number
codes_per_level: at least 1 and at most 65536, a whole number
codebook_decay: at least 0 and less than 1
restart_threshold: at least 0 and at most 65536
restart_step: more than 0 and at most 1
predict_share: a share above 0 and at most 1
commitment_weight: at least 0 and at most 1e+06
position_scale: at least -1e+06 and at most 1e+06
mask_ratio: more than 0 and less than 1
"""


def test_bounds_are_as_recorded() -> None:
    """Models within them exist; another version may widen them, but must not refuse those."""
    numbers = {name: kind for name, kind in kinds_of(BridleSettings).items() if isinstance(kind, (Whole, Real))}
    recorded = {}
    for line in BOUNDS.strip().splitlines():
        names, text = line.split(": ", 1)
        recorded |= dict.fromkeys(names.split(), text)
    assert {name: str(kind) for name, kind in numbers.items()} == recorded


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("pixel_mean", [[-1001, 0, 0], [0, 0, 1001], [0, 0], [0, 0, 0, 0]]),
        ("pixel_std", [[9e-7, 1, 1], [1, 1, 1001], [1, 1], [1, 1, 1, 1]]),
        ("patch_size", [[1025, 1], [1, -1], [], [1, 1, 1, 1]]),
        ("decoder_window", [[1025, 1], [1, -1], [1, 1, 1]]),
    ],
)
def test_lists_have_bounds(name, outside) -> None:
    for value in outside:
        with pytest.raises(InputError, match=name):
            checked_settings({**DEFAULTS, name: value}, "config.json")
    inside = {"pixel_mean": [-1000, 0, 1000], "pixel_std": [1e-6, 1, 1000], "patch_size": [1024, 1]}
    checked_settings({**DEFAULTS, **inside, "decoder_window": [1024, 1]}, "config.json")


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [("fbank_std", [1e-6, 1000], [9e-7, 1001]), ("predict_share", [1e-9, 1], [0, 1.001])],
)
def test_bounds_that_messages_do_not_name(name, inside, outside) -> None:
    for value in inside:
        assert getattr(checked_settings({**DEFAULTS, name: value}, "config.json"), name) == value
    for value in outside:
        with pytest.raises(InputError, match=name):
            checked_settings({**DEFAULTS, name: value}, "config.json")


@pytest.mark.parametrize("name", DEFAULTS)
def test_settings_of_wrong_types_or_out_of_bounds_are_refused(name) -> None:
    refused = 0
    for value in STRANGE:
        try:
            assert getattr(checked_settings({**DEFAULTS, name: value}, "config.json"), name) == value
        except InputError as error:
            assert str(error).startswith("config.json: ")
            refused += 1
    assert refused >= len(STRANGE) - 4  # a few are possible: true, 3.5 or 1e308 for some


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder_width": 1408, "encoder_depth": 40, "encoder_heads": 16, "patch_size": [14, 14]},  # ViT-g
        {"encoder_width": 6144, "encoder_depth": 128, "encoder_heads": 48},
        {"codebook_size": 65536, "num_codebooks": 32},
        {"sample_rate": 192_000, "num_mel_bins": 512},
        {"sample_rate": 500_000},
        {"codebook_size": 2, "num_codebooks": 1, "encoder_depth": 1, "patch_size": [1, 1], "decoder_window": [1, 1]},
    ],
)
def test_bounds_allow_the_largest_and_the_smallest_models(settings) -> None:
    checked_settings(settings, "config.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 10**6, "num_mel_bins": 4096}, "product"),
        ({"modality": "video", "patch_size": [1024] * 3, "decoder_window": []}, "product"),
        ({"num_codebooks": 1024, "codebook_size": 65536}, "product"),
        ({"encoder_depth": 10**9}, r"\(model.encoder_depth is 1000000000; expected at least 1 and at most"),
        ({"encoder_depth": True}, "model.encoder_depth is True; expected"),
        ({"depth": 3}, "unknown settings depth"),
        ({"stages": [{"kind": "encoder", "updates": float("inf")}]}, "updates is inf"),
        (
            {"stages": [{"kind": "encoder", "updates": 10**15}]},
            "updates is 1000000000000000; expected at least 1 and at most",
        ),
        ({"stages": [{"kind": "encoder", "updates": 1}] * 20_000}, "expected at most 10000"),
        ({"stages": [{"kind": "encoder", "updates": 1, "lr": float("inf")}]}, "lr is inf"),
        ({"stages": [{"kind": "encoder", "updates": 1, "tokenizer_weight": float("nan")}]}, "weight is nan"),
    ],
)
def test_impossible_settings_are_named(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        checked_settings(settings, "config.json")
    with pytest.raises(InputError, match="settings are"):
        checked_settings([settings], "config.json")


def test_unknown_settings_of_other_versions_can_be_ignored() -> None:
    assert checked_settings({"_name": "bridle"}, "a.pt", ignore_unknown=True) == BridleSettings()


def test_settings_within_bounds_keep_their_values() -> None:
    settings = checked_settings(DEFAULTS, "config.json")
    assert asdict(settings) == DEFAULTS
    check_settings(settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio is 1.0"),
        ({"encoder_heads": 5}, "encoder_heads is 5"),
        ({"decoder_heads": 3}, "decoder_heads is 3"),
        ({"stages": []}, "stages is empty"),
        ({"codebook_size": 1}, "codebook_size is 1"),
        ({"patch_size": [16]}, "patch_size is .16.; expected two positive numbers, frames and mel bins"),
        ({"modality": "video", "patch_size": [16, 16], "decoder_window": []}, "expected three positive numbers"),
        ({"decoder_window": [4]}, "decoder_window"),
        ({"decoder_window": [0, 4]}, "decoder_window"),
        ({"patch_size": [8, 0]}, "patch_size"),
        ({"latents": "whiten"}, "latents is 'whiten'"),
        ({"codes_per_level": 9}, "codes_per_level is 9"),
        ({"num_books": 3}, "num_books is 3; expected a divisor of model.num_codebooks"),
        ({"num_books": 4, "codebook_dim": 6}, "num_books is 4; expected a divisor of model.codebook_dim 6"),
        ({"fbank_std": 0.0}, "fbank_std"),
        ({"codebook_decay": 1.0}, "codebook_decay is 1.0"),
        ({"restart_step": 0.0}, "restart_step is 0.0"),
        ({"modality": "smell"}, "modality is 'smell'"),
    ],
)
def test_impossible_settings_are_errors(change, words):
    with pytest.raises(InputError, match=words):
        make(**change)


def test_unknown_masking_is_an_error():
    with pytest.raises(InputError, match="model.masking is 'tubes'; expected one of random, tube, block, lines"):
        make(masking="tubes")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predict_share": 0.0}, "model.predict_share is 0.0; expected a share above 0"),
        ({"num_masks": 0}, "model.num_masks is 0; expected at least 1"),
        ({"decoder_kind": "recurrent"}, "expected one of attention, convolution"),
        ({"decoder_kind": "convolution"}, "model.decoder_window is \\[4, 4\\] with decoder_kind convolution"),
        ({"decoder_kind": "cross", "decoder_window": []}, "model.decoder_kind is 'cross', which was removed because"),
        ({"decoder_kind": "convolution", "decoder_window": [], "decoder_heads": 3}, "expected a divisor"),
    ],
)
def test_impossible_decoder_settings_are_errors(changes, words):
    with pytest.raises(InputError, match=words):
        make(**changes)
