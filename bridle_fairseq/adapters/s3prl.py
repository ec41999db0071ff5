"""s3prl: an upstream for its downstream tasks and its ``S3PRLUpstream``. Needs s3prl only for :func:`register`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bridle_fairseq.adapters.frames import ExportFrames
from bridle_fairseq.utils.optional import optional_import


class UpstreamExpert(nn.Module):
    """The frozen encoder of an export as an upstream.

    Args:
        ckpt: folder, name of weights of this package, or name on the Hub.
        model_config: not used; an export has its settings.
        rows: see :class:`.ExportFrames`.
        others: of s3prl, without effect.

    Raises:
        InputError: as :class:`.ExportFrames`.
    """

    def __init__(
        self, ckpt: str = "bridle-small-audio", model_config: str | None = None, rows: str = "frequency", **others: Any
    ) -> None:
        super().__init__()
        self.frames = ExportFrames(ckpt, rows)

    def get_downsample_rates(self, key: str) -> int:
        """Samples from one time step to the next, for all keys."""
        return round(self.frames.sampling_rate * self.frames.hop_size_in_ms / 1000)

    def forward(self, wavs: list[Tensor]) -> dict[str, Any]:
        """``hidden_states``, the outputs of all blocks, and ``last_hidden_state``, normalized: B x T x D each.

        Args:
            wavs: waveforms of any lengths in [-1, 1], at 16 kHz.
        """
        features = self.frames.model.features(wavs, self.frames.sampling_rate, layers="all")
        hidden = [self.frames.steps(x, features) for x in features.layers]
        return {"hidden_states": hidden, "last_hidden_state": self.frames.steps(features.x, features)}


def register(name: str = "bridle") -> None:
    """Make the upstream known to s3prl, as ``-u bridle -k work/exported`` or ``S3PRLUpstream("bridle", ...)``.

    Raises:
        InputError: s3prl is not installed, or does not import beside the installed torchaudio.
    """
    with optional_import("bridle_fairseq.adapters.s3prl.register needs s3prl", "s3prl and its requirements"):
        try:
            import s3prl.hub
        except AttributeError as error:  # 0.4.18 calls what torchaudio no longer has
            raise ImportError(f"it does not import here: {error}") from None
    setattr(s3prl.hub, name, UpstreamExpert)
