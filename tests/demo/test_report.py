"""The demo's page and its pictures."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from bridle_fairseq.demo import report
from bridle_fairseq.report import figures, pictures, sections
from bridle_fairseq.report.charts import Band
from bridle_fairseq.report.examples import RIGHT, VISIBLE, WRONG, Example, Map
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
        bars=[report.Bar("pretrained <encoder>", 0.75, (0.7, 0.8)), report.Bar("chance", 0.1, None)],
        differences=["9 % more right than <others>"],
        maps=[("Encoder", 0.75, Map(rng.normal(size=(4, 2)), ["a", "b", "a", "<c>"], "PCA", ["1", "2", "3", "4<"]))],
        neighbours=[
            report.SimilarClips(
                report.ShownClip("a", "1", "<i>1</i>"),
                [report.ShownClip("a", "2", ""), report.ShownClip("<c>", "4", "")],
            )
        ],
        clips=[Example(clip, rng.integers(0, 3, (8, 3, 2)))],
        predictions=[Example(clip, rng.integers(0, 3, (8, 3, 2)))],
        one="clip",
        method="<svg xmlns='http://www.w3.org/2000/svg'/>",
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
    # icon, figure of the method; spectrogram, two maps, sound; spectrogram twice, two of predictions, sound
    assert len(structure.addresses) == 11
    assert "75 % of the patches are hidden" in text and text.count("% right<") == 3  # and of the map
    assert "Guessing among 16 codes would be right in 6 %" in text
    assert all(address.startswith("data:") for address in structure.addresses)
    assert "@import" not in text and "url(" not in text
    assert "a &lt;b&gt;.wav" in text and "ls -l &lt;here&gt;" in text


def test_page_shows_the_numbers_and_a_map_for_each_level() -> None:
    text = report.render(make_page())
    assert "<p>9 % more right than &lt;others&gt;</p>" in text
    assert "<b>75 %</b>" in text and "<b>10 %</b>" in text and "left:70.0%;width:10.0%" in text
    assert '<td class="value">0.500</td>' in text
    assert "<title>&lt;c&gt;: 4&lt;</title>" in text
    assert '<li class="same"><b>a</b>' in text and '<li class="other"><b>&lt;c&gt;</b>' in text
    assert text.count('alt="codes of level') == 2
    assert text.count('<svg class="chart"') >= 4


def test_page_without_labels_has_a_note() -> None:
    text = report.render(make_page(rows=[], maps=[], neighbours=[], table_note="No labels were given."))
    assert "No labels were given." in text and "<table>" not in text and "Neighbours" not in text


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


def test_masked_patches_are_blank() -> None:
    picture = np.full((4, 6, 3), 7, np.uint8)
    predicted = np.array([[VISIBLE, RIGHT, WRONG], [WRONG, VISIBLE, VISIBLE]])[..., None]
    shown = figures.hide(picture, predicted)
    blank = (shown == figures.HIDDEN).all(-1)
    np.testing.assert_array_equal(blank, np.kron(predicted[..., 0] != VISIBLE, np.ones((2, 2), bool)))
    assert (shown[~blank] == 7).all() and (picture == 7).all()
