"use strict";
// Charts by Observable Plot: SVG in colours of CSS, so that themes and print need no redrawing.

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const shownNumber = (value) => (value == null ? "–" : NUMBER.format(value));
const DRAWN = { curves: drawCurves, bars: drawBars, layers: drawLayers, matrix: drawMatrix, channels: drawChannels };
const WIDE = ["layers", "channels"];

function startChart(figure) {
  const chart = contentOf(figure);
  // What the reader has switched: hidden series, logarithmic axes, axes without a cut.
  const state = { hidden: new Set(), log: { x: false, y: false }, all: false };
  const panels = element("div", { class: WIDE.includes(chart.kind) ? "panels wide" : "panels" });
  const readout = element("output", { class: "readout", "aria-live": "polite" });
  const draw = () => panels.replaceChildren(...chart.panels.map((panel) => drawPanel(chart, panel, state)));
  figure.append(...controls(chart, state, draw, panels), panels, readout, valueTable(chart));
  if (chart.series.length) panels.before(legend(chart, state, draw));
  startReading(chart, state, panels, readout);
  draw();
}

function controls(chart, state, draw, panels) {
  const bar = element("div", { class: "controls screen" });
  const box = (text, change) => {
    const input = element("input", { type: "checkbox", onchange: () => { change(input.checked); draw(); } });
    bar.append(labelled(text, input));
  };
  for (const axis of chart.logarithmic) box(`logarithmic ${axis}`, (on) => { state.log[axis] = on; });
  if (chart.panels.some((panel) => panel.domain)) box("All values", (on) => { state.all = on; });
  bar.append(
    downloadButton("CSV", `Download the values of ${chart.name} as CSV`, () => download(`${chart.name}.csv`, csvText(valueRows(chart)), "text/csv")),
    downloadButton("SVG", `Download the chart ${chart.name} as SVG`, () => download(`${chart.name}.svg`, svgText(chart, state, panels), "image/svg+xml")),
  );
  return [bar];
}

function legend(chart, state, draw) {
  const list = element("div", { class: "legend", role: "group", "aria-label": "Curves to show" });
  for (const series of chart.series) {
    const button = element("button", { type: "button", "aria-pressed": "true" });
    button.innerHTML = `<svg width="26" height="10" aria-hidden="true"><line x1="0" x2="26" y1="5" y2="5" style="stroke: ${series.colour}" stroke-width="${series.width}" stroke-dasharray="${series.dash}"/></svg>`;
    button.append(series.name);
    button.addEventListener("click", () => {
      const hide = !state.hidden.has(series.name);
      state.hidden[hide ? "add" : "delete"](series.name);
      button.setAttribute("aria-pressed", String(!hide));
      draw();
    });
    list.append(button);
  }
  return list;
}

function drawPanel(chart, panel, state) {
  const svg = DRAWN[chart.kind](chart, panel, state);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", [panel.title, chart.description].filter(Boolean).join(". "));
  // Plot names its groups, which are no part of a picture with a name of its own.
  svg.querySelectorAll("[aria-label], [aria-description]").forEach((node) => { node.removeAttribute("aria-label"); node.removeAttribute("aria-description"); });
  // A chart wider than a small screen scrolls, by keys too.
  const wide = WIDE.includes(chart.kind) && { tabindex: "0", role: "region", "aria-label": `Chart ${panel.title || chart.name}` };
  const box = element("div", { class: "panel", ...wide });
  if (panel.title) box.append(element("h3", {}, panel.title));
  box.append(svg);
  if (panel.note && !state.all) box.append(element("p", { class: "note" }, panel.note));
  return box;
}

const FRAME = { style: { fontSize: "12px", overflow: "visible" }, marginBottom: 44, marginLeft: 58, marginTop: 26 };

function drawCurves(chart, panel, state) {
  const looks = new Map(chart.series.map((series) => [series.name, series]));
  const drawable = (row) =>
    !state.hidden.has(row.series) && row.y != null && (!state.log.x || row.x > 0) && (!state.log.y || row.y > 0);
  const rows = panel.rows.filter(drawable);
  const limits = panel.domain && !state.all ? panel.domain : null;
  const inside = (row) => !limits || (row.y >= limits[0] && row.y <= limits[1]);
  const floor = state.log.y ? Math.min(...rows.map((row) => row.y)) / 2 : -Infinity;
  const lines = panel.lines.filter((line) => line.at != null && (!state.log.y || line.at > 0));
  const marks = [Plot.ruleY(lines, { y: "at", stroke: "var(--ink)", strokeDasharray: "5 4" }),
    Plot.text(lines, { y: "at", text: "label", frameAnchor: "left", dx: 4, dy: -7, textAnchor: "start", fill: "var(--soft-ink)" })];
  for (const series of chart.series) {
    const own = rows.filter((row) => row.series === series.name);
    const known = own.filter((row) => row.low != null).map((row) => ({ ...row, low: Math.max(row.low, floor) }));
    const colour = series.colour;
    marks.push(
      Plot.areaY(known, { x: "x", y1: "low", y2: "high", fill: colour, fillOpacity: 0.1, clip: true }),
      Plot.ruleX(known, { x: "x", y1: "low", y2: "high", stroke: colour, strokeWidth: 1.2, clip: true }),
      Plot.lineY(own, { x: "x", y: "y", stroke: colour, strokeWidth: series.width, strokeDasharray: series.dash, clip: true }),
      Plot.dot(own.filter((row) => inside(row) && !row.outcome), { x: "x", y: "y", fill: colour, r: 3 }),
      Plot.dot(own.filter((row) => inside(row) && row.outcome), { x: "x", y: "y", symbol: "times", stroke: "var(--mark)", strokeWidth: 2, r: 5 }),
    );
  }
  const cut = rows.filter((row) => !inside(row)).map((row) => ({ ...row, at: row.y > limits[1] ? limits[1] : limits[0] }));
  marks.push(
    Plot.text(cut, { x: "x", y: "at", text: (row) => `${row.y > row.at ? "▲" : "▼"} ${shownNumber(row.y)}`, fill: (row) => looks.get(row.series)?.colour, dy: (limits && 7) || 0, textAnchor: "end", dx: -4 }),
    Plot.tip(rows.filter(inside), Plot.pointer({ x: "x", y: "y", title: (row) => tipText(chart, row), fill: "var(--card)", stroke: "var(--gray)" })),
  );
  return Plot.plot({
    ...FRAME, width: 480, height: 330, insetLeft: 8, insetRight: 8, insetTop: limits ? 0 : 14, marks,
    x: { label: chart.x, labelAnchor: "center", labelOffset: 38, type: state.log.x ? "log" : "linear", grid: false, ticks: 6, tickFormat: (value) => shownNumber(value) },
    y: { label: chart.y, grid: true, type: state.log.y ? "log" : "linear", domain: limits ?? undefined, tickFormat: (value) => shownNumber(value), ticks: 6 },
    color: { type: "identity" },
  });
}

function tipText(chart, row) {
  const interval = row.low == null || row.low === row.high ? "" : `\n95 %: ${shownNumber(row.low)} to ${shownNumber(row.high)}`;
  return `${row.series}\nat ${shownNumber(row.x)}: ${shownNumber(row.y)}${interval}${row.outcome ? `\n${row.outcome}` : ""}`;
}

function drawBars(chart, panel, state) {
  const limits = panel.domain && !state.all ? panel.domain : null;
  const known = panel.rows.filter((row) => row.value != null);
  const end = (value) => (limits ? Math.min(Math.max(value, limits[0]), limits[1]) : value);
  const cut = known.filter((row) => end(row.value) !== row.value);
  const text = (row) => `${row.name}\n${shownNumber(row.value)}${row.low == null ? "" : `\n95 %: ${shownNumber(row.low)} to ${shownNumber(row.high)}`}`;
  return Plot.plot({
    ...FRAME, width: 480, height: 70 + 30 * panel.rows.length, marginLeft: 168,
    x: { label: chart.x, labelAnchor: "center", labelOffset: 38, grid: true, domain: limits ?? undefined, nice: !limits, tickFormat: (value) => shownNumber(value) },
    y: { label: null, domain: panel.rows.map((row) => row.name) },
    color: { type: "identity" },
    marks: [
      Plot.barX(known, { y: "name", x1: 0, x2: (row) => end(row.value), fill: "colour", insetTop: 2, insetBottom: 2 }),
      Plot.ruleY(known.filter((row) => row.low != null && !cut.includes(row)), { y: "name", x1: "low", x2: "high", stroke: "var(--mark)", strokeWidth: 2, clip: true }),
      Plot.ruleX(panel.lines, { x: "at", stroke: "var(--ink)" }),
      Plot.text(panel.lines, { x: "at", text: "label", frameAnchor: "top", dy: -10, fill: "var(--soft-ink)" }),
      Plot.text(cut, { y: "name", x: (row) => end(row.value), text: (row) => (row.value > 0 ? `${shownNumber(row.value)} ▶` : `◀ ${shownNumber(row.value)}`), textAnchor: "middle", fill: "var(--mark)", dy: -11 }),
      Plot.text(panel.rows.filter((row) => row.outcome), { y: "name", x: 0, text: "outcome", textAnchor: "start", dx: 4, fill: "var(--mark)" }),
      Plot.tip(known, Plot.pointerY({ y: "name", x: (row) => end(row.value), title: text, fill: "var(--card)", stroke: "var(--gray)" })),
    ],
  });
}

// One band a layer; names are drawn where there is room for them.
function layerAxis(rows) {
  const width = Math.max(700, 22 * rows.length + 90);
  const longest = Math.max(...rows.map((row) => row.layer.length));
  const below = Math.min(190, 24 + 6 * longest);
  return { width, height: 190 + below, ...FRAME, marginBottom: below,
    x: { domain: rows.map((row) => row.layer), label: null, tickRotate: -60, tickSize: 3 } };
}

function drawLayers(chart, panel) {
  return Plot.plot({
    ...layerAxis(panel.rows),
    y: { label: chart.y, grid: true, ticks: 5 },
    color: { type: "identity" },
    marks: [
      Plot.barY(panel.rows, { x: "layer", y: "filters", fill: "colour" }),
      Plot.tickY(panel.rows, { x: "layer", y: "by chance", stroke: "var(--ink)", strokeWidth: 2 }),
      Plot.ruleY([0]),
      Plot.tip(panel.rows, Plot.pointerX({ x: "layer", y: "filters", title: (row) => `${row.layer}\n${row.filters} filters\n${shownNumber(row["by chance"])} by chance`, fill: "var(--card)", stroke: "var(--gray)" })),
    ],
  });
}

function drawChannels(chart, panel, state) {
  const rows = state.log.y ? panel.rows.filter((row) => row.most > 0) : panel.rows;
  const floor = Math.min(...rows.flatMap((row) => [row.least, row.median]).filter((value) => value > 0));
  const above = (value) => (state.log.y ? Math.max(value, floor) : value);
  return Plot.plot({
    ...layerAxis(panel.rows),
    y: { label: chart.y, grid: true, type: state.log.y ? "log" : "linear", tickFormat: (value) => shownNumber(value), ticks: 5 },
    marks: [
      Plot.ruleX(rows, { x: "layer", y1: (row) => above(row.least), y2: (row) => above(row.most), stroke: "var(--gray)" }),
      Plot.rect(rows, { x: "layer", y1: (row) => above(row["lower quartile"]), y2: (row) => above(row["upper quartile"]), fill: "var(--gray)" }),
      Plot.tickY(rows, { x: "layer", y: (row) => above(row.median), stroke: "var(--ink)", strokeWidth: 2 }),
      Plot.tip(rows, Plot.pointerX({ x: "layer", y: (row) => above(row.median), title: (row) => `${row.layer}, ${row.channels} channels\nmedian ${shownNumber(row.median)}\n${shownNumber(row.least)} to ${shownNumber(row.most)}`, fill: "var(--card)", stroke: "var(--gray)" })),
    ],
  });
}

function drawMatrix(chart, panel) {
  const names = [...new Set(panel.rows.map((row) => row.column))], rows = [...new Set(panel.rows.map((row) => row.row))];
  const known = panel.rows.filter((row) => row.percent != null);
  return Plot.plot({
    style: FRAME.style, width: 190 + 52 * names.length, height: 190 + 34 * rows.length, marginLeft: 120, marginTop: 60, marginBottom: 110,
    x: { domain: names, label: chart.x, labelAnchor: "center", labelOffset: 100, tickRotate: -45 },
    y: { domain: rows, label: chart.y, labelAnchor: "top", labelOffset: 110 },
    marks: [
      Plot.cell(panel.rows, { x: "column", y: "row", fill: "none", stroke: "var(--rule)" }),
      Plot.cell(known, { x: "column", y: "row", fill: "var(--heat)", fillOpacity: (row) => row.percent / 100, inset: 0.5 }),
      // Text in the colour of the paper where the cell is full of ink.
      Plot.text(known, { x: "column", y: "row", text: (row) => Math.round(row.percent), fill: (row) => (row.percent > 55 ? "var(--paper)" : "var(--ink)") }),
      Plot.text(panel.rows.filter((row) => row.percent == null), { x: "column", y: "row", text: () => "–" }),
    ],
    color: { type: "identity" },
    opacity: { type: "identity" },
  });
}

// Values for people who cannot see or hover: a table, and one row after another by arrow keys.
const HIDDEN_COLUMNS = ["colour", "depth"];

function valueRows(chart) {
  const names = Object.keys(chart.panels[0].rows[0] ?? {}).filter((name) => !HIDDEN_COLUMNS.includes(name));
  const rows = chart.panels.flatMap((panel) => panel.rows.map((row) => [panel.title, ...names.map((name) => row[name])]));
  return [["panel", ...names], ...rows];
}

function valueTable(chart) {
  const box = element("details", { class: "screen" }, element("summary", {}, "Values"));
  // Built when it is opened: a page has thousands of values.
  box.addEventListener("toggle", () => {
    if (!box.open || box.querySelector("table")) return;
    const [head, ...rows] = valueRows(chart);
    const cell = (value) => element("td", { class: typeof value === "string" ? "words" : false }, typeof value === "number" ? shownNumber(value) : `${value ?? "–"}`);
    box.append(element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Values of ${chart.name}` },
      element("table", {}, element("thead", {}, element("tr", {}, head.map((name) => element("th", { scope: "col" }, name)))),
        element("tbody", {}, rows.map((row) => element("tr", {}, row.map(cell)))))));
  });
  return box;
}

function startReading(chart, state, panels, readout) {
  let place = -1;
  panels.tabIndex = 0;
  panels.setAttribute("role", "group");
  panels.setAttribute("aria-label", `${chart.title} Left and right arrow keys read the values.`);
  panels.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const [head, ...all] = valueRows(chart);
    const rows = all.filter((row) => !state.hidden.has(row[1]));
    place = (place + step + rows.length) % rows.length;
    readout.textContent = rows[place].map((value, n) => (value === "" || value == null ? "" : `${head[n]} ${typeof value === "number" ? shownNumber(value) : value}`)).filter(Boolean).join(", ");
  });
}

// One SVG of all panels, with the legend below; colours are written out, and are the light ones.
function svgText(chart, state, panels) {
  const root = document.documentElement, theme = root.style.colorScheme;
  root.style.colorScheme = "light";
  try { return composedSvg(chart, state, panels); } finally { root.style.colorScheme = theme; }
}

function composedSvg(chart, state, panels) {
  const space = "http://www.w3.org/2000/svg", made = (tag, attributes) => {
    const node = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const drawn = [...panels.querySelectorAll(".panel")];
  const across = WIDE.includes(chart.kind) ? 1 : Math.min(drawn.length, 3);
  const sizes = drawn.map((panel) => { const svg = panel.querySelector("svg"); return [Number(svg.getAttribute("width")), Number(svg.getAttribute("height")) + 24]; });
  const wide = Math.max(...sizes.map(([width]) => width)) + 20, high = Math.max(...sizes.map(([, height]) => height)) + 10;
  const shownSeries = chart.series.filter((series) => !state.hidden.has(series.name));
  const width = wide * across, top = high * Math.ceil(drawn.length / across);
  const root = made("svg", { xmlns: space, width, height: top + 20 * shownSeries.length + 10, "font-family": "system-ui, sans-serif", "font-size": 12 });
  const paper = made("rect", { width: "100%", height: "100%" });
  const colour = (value) => {
    const probe = element("span", { style: `color: ${value}` });
    document.body.append(probe);
    const result = getComputedStyle(probe).color;
    probe.remove();
    return result;
  };
  const ink = colour("var(--ink)");
  paper.setAttribute("fill", colour("var(--paper)"));
  root.append(paper);
  const write = (text, x, y, weight = "normal") => { const node = made("text", { x, y, fill: ink, "font-weight": weight }); node.textContent = text; root.append(node); };
  drawn.forEach((panel, n) => {
    const source = panel.querySelector("svg"), copy = source.cloneNode(true);
    const x = wide * (n % across), y = high * Math.floor(n / across);
    const originals = source.querySelectorAll("*");
    copy.querySelectorAll("*").forEach((node, k) => {
      for (const name of ["fill", "stroke"]) if (node.hasAttribute(name) || node.tagName === "text") node.setAttribute(name, getComputedStyle(originals[k])[name]);
    });
    copy.querySelectorAll("style").forEach((node) => node.remove());
    copy.setAttribute("x", x); copy.setAttribute("y", y + 24);
    copy.setAttribute("color", ink);
    write(chart.panels[n].title, x + 10, y + 18, "bold");
    root.append(copy);
  });
  shownSeries.forEach((series, n) => {
    const y = top + 20 * n + 10;
    root.append(made("line", { x1: 10, x2: 40, y1: y, y2: y, stroke: colour(series.colour), "stroke-width": series.width, "stroke-dasharray": series.dash }));
    write(series.name, 48, y + 4);
  });
  return new XMLSerializer().serializeToString(root);
}
