"""All settings of the model in one dataclass, shared by fairseq's configuration, exported models and tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, List

from bridle_fairseq.nn.masking import MASKINGS
from bridle_fairseq.nn.schedule import Schedule
from bridle_fairseq.utils.bounds import (
    ALL_CODES,
    BINS,
    CODEBOOKS,
    CODES,
    DEPTH,
    HEADS,
    PATCH_VALUES,
    RATE,
    RATE_TIMES_BINS,
    WIDTH,
)
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.precision import CODES_PRECISIONS, PRECISIONS
from bridle_fairseq.utils.schema import (
    Anything,
    Flag,
    Kind,
    ListOf,
    OneOf,
    Real,
    Whole,
    check,
    check_product,
    kinds_of,
    shown,
)

# typing.List and evaluated annotations: omegaconf 2.0, which fairseq pins, supports nothing newer.

PATCH_AXES = {
    "audio": ("frames", "mel bins"),
    "image": ("height", "width"),
    "video": ("frames", "height", "width"),
}
TARGET_NORMS = ("none", "clip", "patch", "band")


def _setting(default: Any, kind: Kind, text: str) -> Any:
    """A dataclass field with its kind and with the help text that fairseq shows."""
    metadata = {"help": text, "kind": kind}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class BridleSettings:
    """Sizes of the model's parts and options of the method; the defaults are the base size for audio."""

    modality: str = _setting(
        "audio", OneOf(tuple(PATCH_AXES)), "modality of the inputs: audio (waveforms), image or video (pixels)"
    )
    sample_rate: int = _setting(16000, RATE, "audio: sample rate in Hz")
    num_mel_bins: int = _setting(128, BINS, "audio: number of mel bins")
    fbank_mean: float = _setting(
        -4.4446, Real(-1000, 1000), "audio: mean of the log-mel values (`bridle stats` measures it)"
    )
    fbank_std: float = _setting(
        3.3216,
        Real(1e-6, 1000, text="more than 0 (`bridle stats` measures it)"),
        "audio: standard deviation of the log-mel values; inputs are (x - mean) / (2 std)",
    )

    pixel_mean: List[float] = _setting(
        [0.485, 0.456, 0.406],
        ListOf(Real(-1000, 1000), 3, 3),
        "image, video: mean of red, green and blue, 0 to 1 (`bridle stats`)",
    )
    pixel_std: List[float] = _setting(
        [0.229, 0.224, 0.225],
        ListOf(Real(1e-6, 1000), 3, 3),
        "image, video: their standard deviation; inputs are (x - mean) / std",
    )

    patch_size: List[int] = _setting(
        [16, 16],
        ListOf(Whole(0, 1024), 1, 3),
        "size of a patch; audio: frames and mel bins; image: height and width; video: frames, height and width",
    )
    encoder_width: int = _setting(768, WIDTH, "width of the encoder")
    encoder_depth: int = _setting(12, DEPTH, "number of blocks of the encoder")
    encoder_heads: int = _setting(12, HEADS, "attention heads of the encoder")
    decoder_width: int = _setting(512, WIDTH, "width of the decoder")
    decoder_depth: int = _setting(16, DEPTH, "number of blocks of the decoder")
    decoder_heads: int = _setting(16, HEADS, "attention heads of the decoder; for convolution, groups of channels")
    decoder_kind: str = _setting(
        "attention", OneOf(("attention", "convolution")), "type of decoder: attention or convolution"
    )
    decoder_window: List[int] = _setting(
        [4, 4], ListOf(Whole(0, 1024), 0, 2), "local attention windows in patches; empty: global attention"
    )
    tokenizer_depth: int = _setting(
        12, DEPTH, "number of blocks of the tokenizer; its width and heads are the encoder's"
    )
    estimator_depth: int = _setting(3, DEPTH, "number of blocks of the tokenizer estimator")

    num_codebooks: int = _setting(4, CODEBOOKS, "levels of residual quantization; 1 is plain vector quantization")
    num_books: int = _setting(
        1,
        CODEBOOKS,
        "books in parallel, each with its share of the codebooks and of the dimensions; 1: all are residual",
    )
    codebook_size: int = _setting(256, CODES, "codes per codebook")
    codebook_dim: int = _setting(256, WIDTH, "dimension of the codes")
    codebook_metric: str = _setting(
        "euclidean", OneOf(("euclidean", "cosine")), "euclidean or cosine (with one codebook: the quantizer of BEATs)"
    )
    codebook_decay: float = _setting(0.99, Real(0, 1, below=True), "decay of the codebooks' moving averages")
    codebook_init: str = _setting(
        "kmeans", OneOf(("kmeans", "uniform")), "initialization of codebooks: kmeans or uniform"
    )
    restart_threshold: float = _setting(
        0.25, Real(0, 65536), "codes used less than this fraction of the even share restart; 0: never"
    )
    restart_step: float = _setting(
        0.2,
        Real(0, 1, above=True),
        "a dead code restarts at this fraction of the way from a code in use to one of its vectors; 1: on the vector",
    )
    commitment_weight: float = _setting(0.25, Real(0, 1e6), "weight of the commitment loss")
    codes_per_level: int = _setting(
        1, Whole(1, 65536), "soft codes: the m nearest codes of each level are the targets of a patch"
    )

    mask_ratio: float = _setting(0.8, Real(0, 1, above=True, below=True), "fraction of the patches that is masked")
    num_masks: int = _setting(
        1, Whole(1, 1024), "masks per clip and update; they share file decoding, front end and codes"
    )
    predict_share: float = _setting(
        1.0,
        Real(0, 1, above=True, text="a share above 0 and at most 1"),
        "fraction of the masked patches that is predicted, drawn at random in every update",
    )
    masking: str = _setting(
        "random", OneOf(tuple(MASKINGS)), "how patches are masked: random, tube, block or lines (see nn/masking.py)"
    )
    position_scale: float = _setting(
        1.0, Real(-1e6, 1e6), "cold start: scale of the position embedding before the random projection"
    )
    target_norm: str = _setting(
        "none",
        OneOf(TARGET_NORMS),
        "cold start: mean to subtract from the input before the random projection: none, clip (of all values; "
        "pixels: of each channel), patch (likewise, of each patch), or band (audio: of each mel band over time)",
    )
    tokenizer_init: str = _setting(
        "encoder",
        OneOf(("encoder", "random", "continue")),
        "how a tokenizer stage initializes the tokenizer: encoder (copy its weights), random or continue",
    )
    latents: str = _setting(
        "standardize",
        OneOf(("standardize", "center", "plain")),
        "normalization of the tokenizer's outputs before quantization: standardize, center or plain",
    )
    teacher: str = _setting(
        "standardize",
        OneOf(("standardize", "center", "plain")),
        "normalization of the features that the estimator learns: standardize, center or plain",
    )
    precision: str = _setting(
        "float32",
        OneOf(PRECISIONS),
        "precision of matrix products: float32, bfloat16 (autocast), or auto: bfloat16 where it is fast",
    )
    codes_precision: str = _setting(
        "auto",
        OneOf(CODES_PRECISIONS),
        "precision of the tokenizer's forward pass for codes: float32, float16, bfloat16, or auto: float16 on a GPU "
        "where precision is bfloat16, else float32",
    )
    checkpoint_activations: bool = _setting(
        False, Flag(), "recompute blocks in the backward pass instead of storing activations: less memory, more time"
    )
    compile: bool = _setting(
        False, Flag(), "compile blocks with torch.compile for training (on a CPU, needs a C++ compiler)"
    )
    stages: Any = _setting(
        [{"kind": "encoder", "updates": 1000, "warmup_updates": 100}],
        Anything(),  # Schedule checks them
        "list of stages: kind, updates, lr, warmup_updates, targets, tokenizer_every, tokenizer_weight",
    )

    def schedule(self) -> Schedule:
        """The parsed stages."""
        return Schedule(self.stages or [])


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
    for name, kind in kinds_of(BridleSettings).items():
        check(kind, f"model.{name}", getattr(s, name))
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
    if s.target_norm == "band" and "mel bins" not in axes:
        raise InputError(
            f"model.target_norm is band with modality {s.modality}; expected none, clip or patch: band is for sound"
        )
    for part in ("encoder", "decoder"):
        width, heads = getattr(s, f"{part}_width"), getattr(s, f"{part}_heads")
        if width % heads:
            raise InputError(f"model.{part}_heads is {heads}; expected a divisor of model.{part}_width {width}")
    for name in ("num_codebooks", "codebook_dim"):
        if getattr(s, name) % s.num_books:
            raise InputError(f"model.num_books is {s.num_books}; expected a divisor of model.{name} {getattr(s, name)}")
    if s.codes_per_level > s.codebook_size:
        raise InputError(f"model.codes_per_level is {s.codes_per_level}; expected 1 to codebook_size {s.codebook_size}")
    for limit, values in (
        (RATE_TIMES_BINS, {"model.sample_rate": s.sample_rate, "num_mel_bins": s.num_mel_bins}),
        (PATCH_VALUES, {f"model.patch_size[{axis}]": size for axis, size in enumerate(s.patch_size)}),
        (ALL_CODES, {"model.num_codebooks": s.num_codebooks, "codebook_size": s.codebook_size}),
    ):
        check_product(limit, values)
    s.schedule()


def checked_settings(values: Any, source: str, ignore_unknown: bool = False) -> BridleSettings:
    """Settings from a file or a configuration; those that it lacks have their default.

    Nothing is built here. The weights are compared with the settings where they are read.

    Args:
        values: settings by name, of any types.
        source: the file, for messages.
        ignore_unknown: ignore other names.

    Raises:
        InputError: no mapping, an unknown name, a value of another type or out of bounds, or settings that are not
            possible together.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{source}: settings are {shown(values)}; expected values by name")
    known = [field.name for field in fields(BridleSettings)]
    unknown = [shown(name) if type(name) is not str else name for name in values if name not in known]
    if unknown and not ignore_unknown:
        raise InputError(f"{source}: unknown settings {', '.join(unknown)[:80]}; expected those of this bridle_fairseq")
    settings = BridleSettings(**{name: values[name] for name in known if name in values})
    try:
        check_settings(settings)
    except InputError as error:
        raise InputError(f"{source}: settings that cannot work ({error})") from None
    return settings
