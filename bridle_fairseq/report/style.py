"""Style sheet and script of all pages."""

CSS = """
:root {
  --page: #fbfaf8; --card: #fff; --ink: #1d1b19; --soft: #6b665f; --edge: #e4dfd8; --band: #f4f1ec; --band-odd: #ece7df;
  --accent: #b3471d; --bar: #d9cfc3;
  --line-0: #b3471d; --line-1: #1f6f8b; --line-2: #7a4fa3; --line-3: #3d7f3a;
  --line-4: #a8467a; --line-5: #8a6d1a; --line-6: #4d5d9c; --line-7: #66605a;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #151413; --card: #1e1c1b; --ink: #ece8e3; --soft: #a39c93; --edge: #35312e;
    --band: #252220; --band-odd: #2c2926; --accent: #f0895a; --bar: #5a534b;
    --line-0: #f0895a; --line-1: #62b6d3; --line-2: #bb94e0; --line-3: #86c582;
    --line-4: #e08ab6; --line-5: #d3b45c; --line-6: #93a4e8; --line-7: #aaa49d;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 1080px; margin: 0 auto; padding: 28px 18px 64px; }
header .eyebrow {
  margin: 0; font-size: 13px; font-weight: 600; letter-spacing: .08em; text-transform: uppercase; color: var(--accent);
}
h1 { font-size: clamp(26px, 4.4vw, 38px); line-height: 1.18; margin: 4px 0 10px; letter-spacing: -.015em; }
h2 { font-size: 22px; margin: 48px 0 4px; letter-spacing: -.01em; }
h3 { font-size: 15px; margin: 0 0 2px; }
p { margin: 6px 0 14px; max-width: 74ch; }
p.lead { font-size: 18px; }
.soft, .note, figcaption { color: var(--soft); }
.note, figcaption { font-size: 14px; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 12px; padding: 16px 18px; }
.grid2 {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr)); gap: 16px; margin-top: 14px;
}
.facts { display: flex; flex-wrap: wrap; gap: 10px 34px; padding: 0; margin: 18px 0 0; list-style: none; }
.facts b { display: block; font-size: 22px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.facts span { font-size: 13px; color: var(--soft); }
.scroll { overflow-x: auto; }

table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 14px 9px 0; text-align: left; border-top: 1px solid var(--edge); vertical-align: middle; }
thead th { border-top: 0; padding-top: 0; font-size: 13px; font-weight: 500; color: var(--soft); }
tbody th { font-weight: 500; }
tr.best th, tr.best b { color: var(--accent); }
td.value { min-width: 76px; }
.bars-of { display: grid; gap: 12px; margin-top: 14px; }
.bar { display: grid; grid-template-columns: minmax(0, 16em) 3.2em 1fr; gap: 4px 12px; align-items: center; }
.bar b { text-align: right; font-variant-numeric: tabular-nums; }
.bar.best b, .bar.best > span:first-child { color: var(--accent); font-weight: 600; }
.meter { position: relative; display: block; height: 18px; border-radius: 4px; background: var(--band); }
.meter i { display: block; height: 100%; border-radius: 4px; background: var(--bar); }
.meter u { position: absolute; top: 50%; border-top: 1.5px solid var(--ink); }
.bar.best .meter i { background: var(--accent); }
img.method { display: block; width: 100%; max-width: 960px; margin-top: 14px; }
.grid3 {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 260px), 1fr)); gap: 16px; margin-top: 14px;
}
.query, .nearest li { display: flex; align-items: center; justify-content: space-between; gap: 10px; min-height: 38px; }
.query { border-bottom: 1px solid var(--edge); padding-bottom: 8px; margin-bottom: 8px; }
.nearest { margin: 4px 0 0; padding: 0; list-style: none; }
.nearest .same b { color: var(--line-3); }
.nearest .other b { color: var(--soft); font-weight: 400; text-decoration: line-through; }
.query audio, .nearest audio { height: 32px; width: 150px; }
img.item { height: 64px; border-radius: 4px; image-rendering: pixelated; }

svg.chart { display: block; width: 100%; height: auto; overflow: visible; touch-action: pan-y; }
svg text { font: 11px var(--sans); fill: var(--soft); }
svg text.stage { font-weight: 600; fill: var(--ink); opacity: .75; }
svg .grid { stroke: var(--edge); }
svg .band { fill: var(--band); }
svg .band.odd { fill: var(--band-odd); }
svg polyline { fill: none; stroke-width: 1.9; stroke-linejoin: round; stroke-linecap: round; }
svg .cursor { stroke: var(--soft); stroke-dasharray: 2 3; visibility: hidden; }
.legend {
  display: flex; flex-wrap: wrap; gap: 2px 14px; padding: 0; margin: 4px 0 2px; list-style: none;
  font-size: 13px; color: var(--soft);
}
.legend i { display: inline-block; width: 16px; border-top: 3px solid; vertical-align: middle; margin-right: 5px; }
.legend .dashed i { border-top-style: dashed; }
svg.bars { display: block; width: 100%; height: auto; }
svg.bars path.alive { fill: var(--line-1); }
svg.bars path.dead { fill: var(--line-0); }
svg.bars .even { stroke: var(--ink); stroke-dasharray: 5 4; opacity: .7; }
.legend i.alive { border-color: var(--line-1); }
.legend i.dead { border-color: var(--line-0); }
.legend .key { width: 12px; height: 12px; vertical-align: -1px; margin-right: 5px; }
svg.map { display: block; width: 100%; height: auto; max-height: 560px; overflow: visible; }
svg.map > :not(text) { stroke: var(--card); stroke-width: 1; }
svg.map > .rim { fill: var(--band); stroke: var(--edge); }
svg.map text { font-size: 17px; }
table.confusion { width: auto; font-size: 13px; }
table.confusion caption { text-align: left; color: var(--soft); padding-bottom: 8px; }
table.confusion thead th { vertical-align: bottom; padding: 0; }
table.confusion thead span { writing-mode: vertical-rl; transform: rotate(180deg); padding: 6px 4px; }
table.confusion td {
  min-width: 30px; padding: 6px 4px; text-align: center;
  background: color-mix(in srgb, var(--accent) calc(var(--share) * 70%), transparent);
}
details summary { cursor: pointer; color: var(--soft); margin: 10px 0; }
details td { overflow-wrap: anywhere; }
.readout {
  min-height: 1.6em; margin: 2px 0 0; font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums;
}
.readout b { font-weight: 600; }

.clip { margin: 0; }
.clip figcaption { display: flex; justify-content: space-between; align-items: center; gap: 10px; margin-bottom: 8px; }
.clip figcaption b { color: var(--ink); font-size: 15px; }
.clip audio { height: 32px; max-width: 190px; }
.maps {
  display: grid; grid-template-columns: auto 1fr; gap: 4px 10px; align-items: center;
  font-size: 12px; color: var(--soft);
}
.maps img { display: block; width: 100%; border-radius: 3px; image-rendering: pixelated; }
.maps img.sound { height: 120px; image-rendering: auto; }
.maps img.codes { height: 54px; }
.maps.of-image { grid-template-columns: max-content 1fr max-content 1fr; }
.maps.of-image img { width: 128px; height: auto; }
.maps.of-video img.codes { height: auto; }
.maps .axis { display: flex; justify-content: space-between; grid-column: 2; }

pre {
  margin: 6px 0 18px; padding: 12px 14px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--card); border: 1px solid var(--edge); border-radius: 10px; font: 13px/1.6 var(--mono);
}
code { font: .92em var(--mono); overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(110px, auto) 1fr; gap: 4px 16px; margin: 12px 0; }
dt { color: var(--soft); }
dd { margin: 0; }
footer { margin-top: 52px; padding-top: 14px; border-top: 1px solid var(--edge); font-size: 13px; color: var(--soft); }
@media (max-width: 520px) {
  main { padding: 20px 14px 48px; }
  .card { padding: 13px; }
  th, td { padding-right: 9px; }
  .bar { grid-template-columns: 1fr 3.2em; }
  .bar .meter { grid-column: 1 / -1; }
  .maps { grid-template-columns: 1fr; }
  .maps .axis { grid-column: 1; }
  .maps.of-image { grid-template-columns: max-content 1fr; }
  .maps img.sound { height: 96px; }
  .maps img.codes { height: 48px; }
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: 8px; }
}
"""

# Shows the values of a chart's lines at the pointer; the page is complete without it.
SCRIPT = """
for (const svg of document.querySelectorAll('svg[data-chart]')) {
  const {last, lines} = JSON.parse(svg.dataset.chart);
  const left = %(left)d, width = %(width)d, out = svg.parentNode.querySelector('.readout');
  const cursor = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  cursor.setAttribute('class', 'cursor');
  cursor.setAttribute('y1', %(top)d);
  cursor.setAttribute('y2', %(bottom)d);
  svg.append(cursor);
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * %(full)d;
    const update = (x - left) / width * last;
    if (update < 0 || update > last) return;
    cursor.setAttribute('x1', x);
    cursor.setAttribute('x2', x);
    cursor.style.visibility = 'visible';
    out.replaceChildren('update ' + Math.round(update));
    for (const line of lines) {
      const near = line.points.reduce((a, b) => Math.abs(b[0] - update) < Math.abs(a[0] - update) ? b : a);
      if (Math.abs(near[0] - update) > last / 25) continue;
      const value = document.createElement('b');
      value.style.color = 'var(--line-' + line.colour + ')';
      value.textContent = near[1];
      out.append(' \\u00b7 ' + line.name + ' ', value);
    }
  });
  svg.addEventListener('pointerleave', () => {
    cursor.style.visibility = 'hidden';
    out.replaceChildren();
  });
}
"""
