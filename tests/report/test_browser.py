"""The pages in a real browser: no error, no request, no overflow, every figure visible."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from bridle_fairseq.cli import main as bridle

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")

# Told to the frame around the page before the page's own parts are there.
WATCH = """<script>
window.faults = [];
addEventListener('error', event => faults.push('error: ' + (event.message || event.target.outerHTML)), true);
addEventListener('securitypolicyviolation', event => faults.push('policy: ' + event.blockedURI));
for (const name of ['error', 'warn']) console[name] = (...words) => faults.push('console: ' + words.join(' '));
</script>"""
# Puts what it found into the page, for --dump-dom.
LOOK = """
const frame = document.querySelector('iframe');
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  const small = [...page.querySelectorAll('svg, img, table')].filter(figure => {
    const box = figure.getBoundingClientRect();
    return (box.width < 10 || box.height < 10) && !figure.closest('details:not([open])');
  });
  const wide = [...page.querySelectorAll('main *')].filter(part => {
    const box = part.getBoundingClientRect();
    return box.right > frame.clientWidth + 1 && !part.closest('.scroll, svg, details:not([open])');
  });
  const chart = page.querySelector('svg[data-chart]'), box = chart.getBoundingClientRect();
  chart.dispatchEvent(new frame.contentWindow.PointerEvent('pointermove', {clientX: box.left + box.width / 2}));
  const entries = frame.contentWindow.performance.getEntriesByType('resource').map(entry => entry.name);
  const found = {
    faults: frame.contentWindow.faults, figures: page.querySelectorAll('svg, img').length,
    small: small.map(part => part.outerHTML.slice(0, 99)), wide: wide.map(part => part.outerHTML.slice(0, 99)),
    overflow: root.scrollWidth - frame.clientWidth, asked: entries.filter(name => !name.startsWith('data:')),
    readout: chart.parentNode.querySelector('.readout').textContent,
    ink: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
  };
  const out = document.createElement('pre');
  out.id = 'found';
  out.textContent = JSON.stringify(found);
  document.body.append(out);
};
"""


def look(text: str, width: int, folder, *options: str) -> dict:
    """What the browser found in a page that is shown in a frame of this width."""
    inner = text.replace("<head>", f"<head>{WATCH}", 1)
    # a frame, as a browser's own window can't be made as narrow as a phone
    frame = f'<iframe style="border:0;width:{width}px;height:900px"></iframe>'
    outer = f"<!doctype html><meta charset=utf-8><body>{frame}<script>{LOOK}frame.srcdoc = {{page}};</script>"
    literal = json.dumps(inner).replace("</", "<\\/").replace("<!--", "<\\!--")
    (folder / "frame.html").write_text(outer.replace("{page}", literal), encoding="utf-8")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        *options,
    ]
    command += ["--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", (folder / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def pages(runs, finetuned, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    bridle.main(["report", str(runs[0]), "--clips", "2", "--out", str(folder / "one.html")])
    bridle.main(["report", *map(str, runs), "--out", str(folder / "both.html")])
    bridle.main(["report", str(finetuned), "--out", str(folder / "finetuned.html")])
    return {path.stem: path.read_text() for path in folder.glob("*.html")}


@pytest.mark.parametrize("name,figures", [("one", 8), ("both", 8), ("finetuned", 2)])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_self_contained_at_any_width(pages, tmp_path, name, figures, width) -> None:
    found = look(pages[name], width, tmp_path)
    assert found["faults"] == [] and found["asked"] == []
    assert found["small"] == [] and found["wide"] == [] and found["overflow"] <= 0
    assert found["figures"] >= figures and found["readout"].startswith("update ")


def test_page_follows_the_preferred_colour_scheme(pages, tmp_path) -> None:
    dark = look(pages["one"], 390, tmp_path, "--blink-settings=preferredColorScheme=0")["ink"]
    light = look(pages["one"], 390, tmp_path, "--blink-settings=preferredColorScheme=1")["ink"]
    assert sum(map(int, re.findall(r"\d+", dark))) < 150 < 600 < sum(map(int, re.findall(r"\d+", light)))


def test_faults_are_detected(pages, tmp_path) -> None:
    bad = '<img src="http://127.0.0.1:9/a.png"><script>missing()</script><div style="width:999px">x</div></main>'
    found = look(pages["both"].replace("</main>", bad), 390, tmp_path)
    assert [fault.split(":")[0] for fault in found["faults"]].count("policy") == 1
    assert any("missing" in fault for fault in found["faults"])
    assert found["overflow"] > 500 and len(found["wide"]) == 1
