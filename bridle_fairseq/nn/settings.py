"""All settings of the model in one dataclass, shared by fairseq's configuration, exported models and tests."""

from dataclasses import dataclass, field
from typing import Any, List

from bridle_fairseq.nn.masking import MASKINGS
from bridle_fairseq.nn.schedule import Schedule
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.precision import CODES_PRECISIONS, PRECISIONS

# typing.List and evaluated annotations: omegaconf 2.0, which fairseq pins, supports nothing newer.


def _setting(default: Any, text: str) -> Any:
    """A dataclass field with the help text that fairseq shows."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class BridleSettings:
    """Sizes of the model's parts and options of the method; the defaults are the base size for audio."""

    modality: str = _setting("audio", "modality of the inputs: audio (waveforms), image or video (pixels)")
    sample_rate: int = _setting(16000, "audio: sample rate in Hz")
    num_mel_bins: int = _setting(128, "audio: number of mel bins")
    fbank_mean: float = _setting(-4.4446, "audio: mean of the log-mel values (`bridle stats` measures it)")
    fbank_std: float = _setting(
        3.3216, "audio: standard deviation of the log-mel values; inputs are (x - mean) / (2 std)"
    )

    pixel_mean: List[float] = _setting(
        [0.485, 0.456, 0.406], "image, video: mean of red, green and blue, 0 to 1 (`bridle stats`)"
    )
    pixel_std: List[float] = _setting(
        [0.229, 0.224, 0.225], "image, video: their standard deviation; inputs are (x - mean) / std"
    )

    patch_size: List[int] = _setting(
        [16, 16],
        "size of a patch; audio: frames and mel bins; image: height and width; video: frames, height and width",
    )
    encoder_width: int = _setting(768, "width of the encoder")
    encoder_depth: int = _setting(12, "number of blocks of the encoder")
    encoder_heads: int = _setting(12, "attention heads of the encoder")
    decoder_width: int = _setting(512, "width of the decoder")
    decoder_depth: int = _setting(16, "number of blocks of the decoder")
    decoder_heads: int = _setting(16, "attention heads of the decoder; for convolution, groups of channels")
    decoder_kind: str = _setting("attention", "type of decoder: attention or convolution")
    decoder_window: List[int] = _setting([4, 4], "local attention windows in patches; empty: global attention")
    tokenizer_depth: int = _setting(12, "number of blocks of the tokenizer; its width and heads are the encoder's")
    estimator_depth: int = _setting(3, "number of blocks of the tokenizer estimator")

    num_codebooks: int = _setting(4, "levels of residual quantization; 1 is plain vector quantization")
    codebook_size: int = _setting(256, "codes per codebook")
    codebook_dim: int = _setting(256, "dimension of the codes")
    codebook_metric: str = _setting("euclidean", "euclidean or cosine (with one codebook: the quantizer of BEATs)")
    codebook_decay: float = _setting(0.99, "decay of the codebooks' moving averages")
    codebook_init: str = _setting("kmeans", "initialization of codebooks: kmeans or uniform")
    restart_threshold: float = _setting(0.25, "codes used less than this fraction of the even share restart; 0: never")
    restart_step: float = _setting(
        0.2,
        "a dead code restarts at this fraction of the way from a code in use to one of its vectors; 1: on the vector",
    )
    commitment_weight: float = _setting(0.25, "weight of the commitment loss")
    codes_per_level: int = _setting(1, "soft codes: the m nearest codes of each level are the targets of a patch")

    mask_ratio: float = _setting(0.8, "fraction of the patches that is masked")
    num_masks: int = _setting(1, "masks per clip and update; they share file decoding, front end and codes")
    predict_share: float = _setting(
        1.0, "fraction of the masked patches that is predicted, drawn at random in every update"
    )
    masking: str = _setting("random", "how patches are masked: random, tube, block or lines (see nn/masking.py)")
    position_scale: float = _setting(1.0, "cold start: scale of the position embedding before the random projection")
    tokenizer_init: str = _setting(
        "encoder", "how a tokenizer stage initializes the tokenizer: encoder (copy its weights), random or continue"
    )
    latents: str = _setting(
        "standardize", "normalization of the tokenizer's outputs before quantization: standardize, center or plain"
    )
    teacher: str = _setting(
        "standardize", "normalization of the features that the estimator learns: standardize, center or plain"
    )
    precision: str = _setting(
        "float32", "precision of matrix products: float32, bfloat16 (autocast), or auto: bfloat16 where it is fast"
    )
    codes_precision: str = _setting(
        "auto",
        "precision of the tokenizer's forward pass for codes: float32, float16, bfloat16, or auto: float16 on a GPU "
        "where precision is bfloat16, else float32",
    )
    checkpoint_activations: bool = _setting(
        False, "recompute blocks in the backward pass instead of storing activations: less memory, more time"
    )
    compile: bool = _setting(False, "compile blocks with torch.compile for training (on a CPU, needs a C++ compiler)")
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
    "decoder_kind": ("attention", "convolution"),
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
    """Check that settings are possible.

    Raises:
        InputError: with one sentence for the first setting that is not.
    """
    if s.decoder_kind == "cross":
        raise InputError(
            "model.decoder_kind is 'cross', which was removed because it learned no better than an untrained model; "
            "expected attention or convolution"
        )
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
            "list: only the decoder of kind attention has windows"
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
        raise InputError(
            f"model.pixel_mean is {list(s.pixel_mean)} and model.pixel_std {list(s.pixel_std)}; expected three numbers "
            "each, deviations above 0 (`bridle stats` measures them)"
        )
    s.schedule()
