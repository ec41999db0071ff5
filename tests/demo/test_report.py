"""The demo's page and its pictures."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from bridle_fairseq.demo import report
from bridle_fairseq.report import pictures, sections
from bridle_fairseq.report.charts import Band
from bridle_fairseq.report.examples import Example
from bridle_fairseq.report.images import code_colours
from bridle_fairseq.training.log import Record


def decode(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def make_page(**changes) -> report.Page:
    rng = np.random.default_rng(0)
    values = {"loss": 2.0, **{f"{name}_{k}": 0.5 for name in ("acc", "perplexity", "used") for k in (1, 2)}}
    clip = pictures.Clip(
        name="a <b>.wav",
        label="",
        picture=rng.integers(0, 256, (128, 48, 3), dtype=np.uint8),
        codes=rng.integers(0, 16, (8, 3, 2)),
        kind="log-mel",
        style="sound",
        ticks=("0", "0.24 s", "0.48 s"),
        player='<audio controls src="data:audio/wav;base64,"></audio>',
    )
    page = dict(
        headline="It works",
        summary="s",
        facts=[("12", "clips")],
        records=[Record("train", u, values) for u in (10, 20, 30)],
        bands=[Band("encoder", "E", 0, 30)],
        rows=[report.ResultRow("pretrained", 0.75, "layer 3", best=True), report.ResultRow("untrained", 0.5)],
        table_note="n",
        differences=["9 % more right than <others>"],
        clips=[Example(clip, rng.integers(0, 3, (8, 3, 2)))],
        shown=("Sound and its codes", "Codes that lie close together"),
        codebooks=[rng.normal(size=(16, 4)) for _ in range(2)],
        codebook_size=16,
        mask_ratio=0.75,
        files=[("Codes", "x/y")],
        commands=[("Next", "ls -l <here>")],
    )
    return report.Page(**{**page, **changes})


def test_page_is_well_formed_and_self_contained(structure_of) -> None:
    text = report.render(make_page())
    structure = structure_of(text)
    assert structure.open == []
    assert len(structure.addresses) == 7  # icon, spectrogram, two maps, two of predictions, sound
    assert "75 % of the patches are masked" in text and text.count("% right") == 4  # as text and in words
    assert all(address.startswith("data:") for address in structure.addresses)
    assert "@import" not in text and "url(" not in text
    assert "a &lt;b&gt;.wav" in text and "ls -l &lt;here&gt;" in text


def test_page_shows_the_numbers_and_a_map_for_each_level() -> None:
    text = report.render(make_page())
    assert "<p>9 % more right than &lt;others&gt;</p>" in text
    assert "<b>0.750</b>" in text and "<b>0.500</b>" in text
    assert text.count('alt="codes of level') == 2
    assert text.count('<svg class="chart"') >= 4


def test_page_without_labels_has_a_note() -> None:
    text = report.render(make_page(rows=[], table_note="No labels were given."))
    assert "No labels were given." in text and "<table>" not in text


def test_maps_have_the_layout_of_the_spectrogram() -> None:
    page = make_page()
    colours = [code_colours(codebook) for codebook in page.codebooks]
    images = [
        decode(data)
        for data in re.findall('image/png;base64,([^"]+)', sections.clip_figure(page.clips[0].clip, colours))
    ]
    assert images[0].shape[:2] == (128, 48)  # 3 steps of 16 frames
    assert images[1].shape[:2] == (8, 3)
    np.testing.assert_array_equal(images[1], colours[0][page.clips[0].clip.codes[..., 0]])
