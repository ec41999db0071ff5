"""All settings of the model, in one dataclass: what fairseq's configuration, an exported model and the tests share."""

from dataclasses import dataclass, field
from typing import Any, List

from bridle_fairseq.nn.masking import MASKINGS
from bridle_fairseq.nn.schedule import Schedule
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.precision import CODES_PRECISIONS, PRECISIONS

# `List` and real (not postponed) annotations: omegaconf 2.0, which fairseq pins, reads nothing newer.


def _setting(default: Any, text: str) -> Any:
    """A field with its explanation, as fairseq shows it."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class BridleSettings:
    """Sizes of the parts and choices of the method; the defaults are the base size of audio."""

    modality: str = _setting("audio", "what a source is: audio (waveforms), image or video (pixels)")
    sample_rate: int = _setting(16000, "audio: samples a second")
    num_mel_bins: int = _setting(128, "audio: mel bins of the filter bank")
    fbank_mean: float = _setting(-4.4446, "audio: mean of the log-mel values (`bridle stats` measures it)")
    fbank_std: float = _setting(3.3216, "audio: deviation of the log-mel values; inputs are (x - mean) / (2 std)")

    pixel_mean: List[float] = _setting(
        [0.485, 0.456, 0.406], "image, video: mean of red, green, blue, 0 to 1 (`bridle stats`)"
    )
    pixel_std: List[float] = _setting(
        [0.229, 0.224, 0.225], "image, video: their deviation; inputs are (x - mean) / std"
    )

    patch_size: List[int] = _setting(
        [16, 16], "patch: frames and mel bins; image: height and width; video: frames, height and width"
    )
    encoder_width: int = _setting(768, "width of the encoder")
    encoder_depth: int = _setting(12, "blocks of the encoder")
    encoder_heads: int = _setting(12, "attention heads of the encoder")
    decoder_width: int = _setting(512, "width of the decoder")
    decoder_depth: int = _setting(16, "blocks of the decoder")
    decoder_heads: int = _setting(16, "attention heads of the decoder; convolution: groups of channels")
    decoder_kind: str = _setting(
        "attention",
        "decoder: attention (among all patches), cross (of predicted patches to visible ones) or convolution",
    )
    decoder_window: List[int] = _setting([4, 4], "local attention windows in patches; empty: global attention")
    tokenizer_depth: int = _setting(12, "blocks of the tokenizer, whose width and heads are the encoder's")
    estimator_depth: int = _setting(3, "blocks of the tokenizer estimator")

    num_codebooks: int = _setting(4, "levels of residual quantization; 1 is plain VQ")
    codebook_size: int = _setting(256, "codes of a codebook")
    codebook_dim: int = _setting(256, "width of the codes")
    codebook_metric: str = _setting("euclidean", "euclidean or cosine (with one codebook: the VQ of BEATs)")
    codebook_decay: float = _setting(0.99, "decay of the codebooks' moving averages")
    codebook_init: str = _setting("kmeans", "start of new codebooks: kmeans or uniform")
    restart_threshold: float = _setting(0.25, "codes below this share of even use restart; 0: never")
    restart_step: float = _setting(
        0.2, "a dead code restarts this far from a code to a vector that fell on it; 1: on the vector itself"
    )
    commitment_weight: float = _setting(0.25, "weight of the commitment loss")
    codes_per_level: int = _setting(1, "soft codes: the nearest m codes of a level are the target of a patch")

    mask_ratio: float = _setting(0.8, "share of the patches that the encoder must predict")
    num_masks: int = _setting(1, "masks of each clip in an update; decoding, front end and codes serve all of them")
    predict_share: float = _setting(1.0, "share of the masked patches that are predicted, drawn anew each time")
    masking: str = _setting("random", "which patches those are: random, tube, block or lines (see nn/masking.py)")
    position_scale: float = _setting(1.0, "cold start: factor on the positions added before the random projection")
    tokenizer_init: str = _setting(
        "encoder", "tokenizer at its stage's start: encoder (its weights), random or continue"
    )
    latents: str = _setting("standardize", "tokenizer's outputs before quantization: standardize, center or plain")
    teacher: str = _setting(
        "standardize", "encoder's features that the tokenizer estimates: standardize, center or plain"
    )
    precision: str = _setting(
        "float32", "of matrix products: float32, bfloat16 (autocast), or auto: bfloat16 where it is fast"
    )
    codes_precision: str = _setting(
        "auto",
        "of the tokenizer's pass for codes, which has no gradient: float32, float16, bfloat16, or auto: float32, but "
        "float16 on a GPU where precision is bfloat16",
    )
    checkpoint_activations: bool = _setting(
        False, "compute blocks again in the backward pass instead of keeping what is in them: less memory, more time"
    )
    compile: bool = _setting(False, "training: translate blocks by torch.compile (needs a C++ compiler on a CPU)")
    stages: Any = field(
        default_factory=lambda: [{"kind": "encoder", "updates": 1000, "warmup_updates": 100}],
        metadata={
            "help": "list of stages: kind, updates, lr, warmup_updates, targets, tokenizer_every, tokenizer_weight"
        },
    )

    def schedule(self) -> Schedule:
        """The parsed stages."""
        return Schedule(self.stages or [])


PATCH_AXES = {
    "audio": ("frames", "mel bins"),
    "image": ("height", "width"),
    "video": ("frames", "height", "width"),
}
CHOICES = {
    "modality": tuple(PATCH_AXES),
    "decoder_kind": ("attention", "cross", "convolution"),
    "codebook_metric": ("euclidean", "cosine"),
    "codebook_init": ("kmeans", "uniform"),
    "tokenizer_init": ("encoder", "random", "continue"),
    "latents": ("standardize", "center", "plain"),
    "teacher": ("standardize", "center", "plain"),
    "precision": PRECISIONS,
    "codes_precision": CODES_PRECISIONS,
    "masking": tuple(MASKINGS),
}

NUMBERS = {2: "two", 3: "three"}


def check_settings(s: BridleSettings) -> None:
    """Raise :class:`InputError` with one sentence for settings that cannot work."""
    for name, allowed in CHOICES.items():
        if getattr(s, name) not in allowed:
            raise InputError(f"model.{name} is {getattr(s, name)!r}; expected one of {', '.join(allowed)}")
    if s.sample_rate < 100 or s.num_mel_bins < 1:
        raise InputError(
            f"sample_rate is {s.sample_rate} and num_mel_bins {s.num_mel_bins}; expected at least 100 Hz and 1 bin"
        )
    if not 0 < s.mask_ratio < 1:
        raise InputError(f"model.mask_ratio is {s.mask_ratio}; expected a share above 0 and below 1")
    if not 0 < s.predict_share <= 1:
        raise InputError(f"model.predict_share is {s.predict_share}; expected a share above 0 and at most 1")
    if not 0 <= s.codebook_decay < 1:
        raise InputError(f"model.codebook_decay is {s.codebook_decay}; expected 0 or more and less than 1")
    if not 0 < s.restart_step <= 1:
        raise InputError(f"model.restart_step is {s.restart_step}; expected more than 0 and at most 1")
    axes = PATCH_AXES[s.modality]
    if len(s.patch_size) != len(axes) or min(s.patch_size) < 1:
        names = f"{', '.join(axes[:-1])} and {axes[-1]}"
        raise InputError(
            f"model.patch_size is {list(s.patch_size)}; expected {NUMBERS[len(axes)]} positive numbers, {names}"
        )
    if s.decoder_window and (len(s.decoder_window) != 2 or min(s.decoder_window) < 1):
        raise InputError(
            f"model.decoder_window is {list(s.decoder_window)}; expected two positive numbers or an empty list"
        )
    if s.decoder_window and len(axes) != 2:
        raise InputError(
            f"model.decoder_window is {list(s.decoder_window)} with modality {s.modality}; expected an empty list: "
            "windows have two axes"
        )
    if s.decoder_window and s.decoder_kind != "attention":
        raise InputError(
            f"model.decoder_window is {list(s.decoder_window)} with decoder_kind {s.decoder_kind}; expected an empty "
            "list: windows are of the decoder of kind attention"
        )
    for part in ("encoder", "decoder"):
        width, heads = getattr(s, f"{part}_width"), getattr(s, f"{part}_heads")
        if heads < 1 or width % heads:
            raise InputError(f"model.{part}_heads is {heads}; expected a divisor of model.{part}_width {width}")
    for name in (
        "encoder_depth",
        "decoder_depth",
        "tokenizer_depth",
        "estimator_depth",
        "num_masks",
        "num_codebooks",
        "codebook_dim",
    ):
        if getattr(s, name) < 1:
            raise InputError(f"model.{name} is {getattr(s, name)}; expected at least 1")
    if not 2 <= s.codebook_size <= 65536:
        raise InputError(f"model.codebook_size is {s.codebook_size}; expected 2 to 65536")
    if not 1 <= s.codes_per_level <= s.codebook_size:
        raise InputError(f"model.codes_per_level is {s.codes_per_level}; expected 1 to codebook_size {s.codebook_size}")
    if s.fbank_std <= 0:
        raise InputError(f"model.fbank_std is {s.fbank_std}; expected more than 0 (`bridle stats` measures it)")
    if len(s.pixel_mean) != 3 or len(s.pixel_std) != 3 or min(s.pixel_std) <= 0:
        found = f"model.pixel_mean is {list(s.pixel_mean)} and model.pixel_std {list(s.pixel_std)}"
        raise InputError(f"{found}; expected three numbers each, deviations above 0 (`bridle stats` measures them)")
    s.schedule()
