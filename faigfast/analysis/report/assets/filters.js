"use strict";
// The filter browser: layer → heat map of out × in channels → kernel before, after and changed.

function numbers(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

function cssColour(name) {
  const probe = element("span", { style: `color: var(--${name})` });
  document.body.append(probe);
  const parts = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return parts.slice(0, 3);
}

const blend = (a, b, share) => a.map((value, n) => Math.round(value + (b[n] - value) * share));

function startBrowser(part) {
  const data = contentOf(part);
  const layers = data.layers.map((layer) => ({
    ...layer,
    before: numbers(layer.before, Int16Array),
    after: numbers(layer.after, Int16Array),
    scores: Object.fromEntries(Object.entries(layer.scores).map(([name, text]) => [name, numbers(text, Float32Array)])),
    ranks: Object.fromEntries(Object.entries(layer.ranks).map(([name, text]) => [name, numbers(text, Int32Array)])),
  }));
  if (!layers.length) {
    part.append(element("p", {}, "No layer is small enough for the page."));
    return () => {};
  }
  const state = { layer: 0, row: 0, column: 0, score: data.degradations[0], common: true };
  const layerSelect = element("select", {}, options(layers.map((layer) => `${layer.depth}: ${layer.name} (${layer.out} × ${layer.in})`), 0));
  const scoreSelect = element("select", {}, options(scoreNames(data), 0));
  const common = element("input", { type: "checkbox", checked: true });
  const canvas = element("canvas", { tabindex: "0", role: "img" });
  const ramp = element("canvas", { class: "ramp", width: 192, height: 1, "aria-hidden": "true" });
  const rampEnds = element("div", { class: "ends" });
  const facts = element("div", { "aria-live": "polite" }), kernels = element("div", { class: "kernels" });
  const save = downloadButton("CSV", "Download scores and ranks of this layer as CSV", () => download(`filters-${layers[state.layer].name}.csv`, csvText(layerRows(data, layers[state.layer])), "text/csv"));
  const saveKernel = downloadButton("SVG", "Download the three kernels as SVG", () => download("kernel.svg", kernelsText(kernels), "image/svg+xml"));
  part.append(
    ...bestButtons(data, layers, (place) => {
      Object.assign(state, place);
      layerSelect.value = state.layer;
      scoreSelect.value = scoreKeys(data).indexOf(state.score);
      draw();
    }),
    element("div", { class: "controls screen" }, labelled("Layer", layerSelect), labelled("Colour by", scoreSelect), labelled("One scale for all layers", common), save, saveKernel),
    element("div", { class: "halves" },
      element("div", {}, element("p", { class: "note" }, "Rows: output channels; columns: input channels. Click, or arrow keys."), canvas, ramp, rampEnds),
      element("div", {}, facts, kernels)),
  );
  const draw = () => {
    const layer = layers[state.layer];
    state.row = Math.min(state.row, layer.out - 1);
    state.column = Math.min(state.column, layer.in - 1);
    const most = drawHeatMap(canvas, ramp, layers, state, data);
    const contrast = state.score in layer.scores ? "" : "−";
    rampEnds.replaceChildren(element("span", {}, contrast ? `−${shownValue(most)}` : "0"), element("span", {}, "square-root scale"), element("span", {}, shownValue(most)));
    drawFacts(facts, kernels, data, layer, state);
  };
  layerSelect.addEventListener("change", () => { state.layer = Number(layerSelect.value); draw(); });
  scoreSelect.addEventListener("change", () => { state.score = scoreKeys(data)[scoreSelect.value]; draw(); });
  common.addEventListener("change", () => { state.common = common.checked; draw(); });
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect(), layer = layers[state.layer];
    state.column = Math.min(layer.in - 1, Math.floor(((event.clientX - box.left) / box.width) * layer.in));
    state.row = Math.min(layer.out - 1, Math.floor(((event.clientY - box.top) / box.height) * layer.out));
    draw();
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    state.row = Math.max(0, state.row + step[0]);
    state.column = Math.max(0, state.column + step[1]);
    draw();
  });
  const first = data.contrasts.map((name) => data.top[name][0]).find(Boolean);
  if (first) [state.layer, state.row, state.column] = first;
  layerSelect.value = state.layer;
  draw();
  return draw;
}

const shownValue = (value) => new Intl.NumberFormat("en", { maximumSignificantDigits: 3 }).format(value);
const scoreNames = (data) => [...data.degradations.map((name) => `score under ${name}`), ...pairsOf(data).map(([a, b]) => `${a} − ${b}`)];
const scoreKeys = (data) => [...data.degradations, ...pairsOf(data).map((pair) => pair.join("\n"))];
// Differences of scores for few degradations; many would make a list nobody reads.
const pairsOf = (data) => (data.degradations.length > 4 ? [] : data.degradations.flatMap((a, n) => data.degradations.slice(n + 1).map((b) => [a, b])));

function valuesOf(layer, key) {
  if (key in layer.scores) return layer.scores[key];
  const [a, b] = key.split("\n");
  return layer.scores[a].map((value, n) => value - layer.scores[b][n]);
}

// A contrast with the name of a degradation shows the scores of that degradation.
const scored = (data, name) => (data.degradations.includes(name) ? { score: name } : {});

function bestButtons(data, layers, go) {
  return data.contrasts.map((name) => {
    const buttons = data.top[name].map(([layer, row, column], n) =>
      element("button", { type: "button", onclick: () => go({ layer, row, column, ...scored(data, name) }) }, `${n + 1}. ${layers[layer].name} ${row},${column}`));
    return element("details", { open: true }, element("summary", {}, `Best filters: ${name}`), element("div", { class: "best screen" }, buttons));
  });
}

// Square roots: scores are so unequal that a linear scale shows a handful of filters alone.
function drawHeatMap(canvas, ramp, layers, state, data) {
  const layer = layers[state.layer], values = valuesOf(layer, state.score);
  const among = state.common ? layers.map((one) => valuesOf(one, state.score)) : [values];
  let most = 0;
  for (const part of among) for (const value of part) most = Math.max(most, Math.abs(value));
  most = most || 1;
  const signed = !(state.score in layer.scores);
  const paper = cssColour("paper"), above = cssColour(signed ? "above" : "heat"), below = cssColour("below");
  const colour = (value) => blend(paper, value < 0 ? below : above, Math.sqrt(Math.abs(value) / most));
  const cell = Math.max(1, Math.min(24, Math.floor(480 / Math.max(layer.out, layer.in))));
  canvas.width = layer.in * cell; canvas.height = layer.out * cell;
  const pen = canvas.getContext("2d");
  for (let row = 0; row < layer.out; row++) for (let column = 0; column < layer.in; column++) {
    pen.fillStyle = `rgb(${colour(values[row * layer.in + column]).join()})`;
    pen.fillRect(column * cell, row * cell, cell, cell);
  }
  pen.strokeStyle = `rgb(${cssColour("mark").join()})`;
  pen.lineWidth = 2;
  pen.strokeRect(state.column * cell, state.row * cell, Math.max(cell, 3), Math.max(cell, 3));
  const name = scoreNames(data)[scoreKeys(data).indexOf(state.score)];
  canvas.setAttribute("aria-label", `Heat map of ${layer.name}, ${layer.out} output by ${layer.in} input channels, ${name}. Arrow keys choose a filter.`);
  const strip = ramp.getContext("2d");
  for (let x = 0; x < ramp.width; x++) {
    const share = x / (ramp.width - 1);
    strip.fillStyle = `rgb(${colour(most * (signed ? 2 * share - 1 : share)).join()})`;
    strip.fillRect(x, 0, 1, 1);
  }
  return most;
}

function drawFacts(facts, kernels, data, layer, state) {
  const place = state.row * layer.in + state.column;
  const size = layer.height * layer.width;
  const weights = (kind) => [...layer[kind].subarray(place * size, (place + 1) * size)].map((value) => (value * layer.scale) / 32767);
  const before = weights("before"), after = weights("after"), change = after.map((value, n) => value - before[n]);
  const norm = (kernel) => Math.hypot(...kernel);
  const ranks = data.contrasts.map((name) => {
    const rank = layer.ranks[name][place];
    return element("tr", {}, element("th", { scope: "row" }, `rank for ${name}`), element("td", {}, rank ? `${rank.toLocaleString("en")} of ${data.total.toLocaleString("en")}` : "not scored"));
  });
  const scores = data.degradations.map((name) => element("tr", {}, element("th", { scope: "row" }, `score under ${name}`), element("td", {}, shownValue(layer.scores[name][place]))));
  const relative = norm(before) ? `${shownValue((100 * norm(change)) / norm(before))} %` : "–";
  facts.replaceChildren(
    element("h3", {}, `${layer.name}, out ${state.row}, in ${state.column}`),
    element("table", {}, element("tbody", {}, ranks, scores, element("tr", {}, element("th", { scope: "row" }, "size of the change, of the baseline's"), element("td", {}, relative)))),
  );
  const largest = (kernel) => Math.max(...kernel.map(Math.abs));
  const common = Math.max(largest(before), largest(after));
  kernels.replaceChildren(
    drawKernel("baseline", before, layer, common),
    drawKernel("target", after, layer, common),
    drawKernel("change, own scale", change, layer, largest(change)),
  );
}

function drawKernel(title, kernel, layer, most) {
  const cell = layer.width > 12 ? 14 : 40, space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("width", layer.width * cell); svg.setAttribute("height", layer.height * cell);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${title}: ${kernel.map(shownValue).join(", ")}`);
  kernel.forEach((value, n) => {
    const x = (n % layer.width) * cell, y = Math.floor(n / layer.width) * cell;
    const box = document.createElementNS(space, "rect"), share = most ? Math.abs(value) / most : 0;
    for (const [name, given] of Object.entries({ x, y, width: cell, height: cell })) box.setAttribute(name, given);
    box.style.fill = `color-mix(in srgb, var(--${value < 0 ? "below" : "above"}) ${(100 * share).toFixed(1)}%, var(--paper))`;
    svg.append(box);
    if (cell > 20) {
      const text = document.createElementNS(space, "text");
      for (const [name, given] of Object.entries({ x: x + cell / 2, y: y + cell / 2 + 4, "text-anchor": "middle", "font-size": 9.5 })) text.setAttribute(name, given);
      text.style.fill = share > 0.6 ? "var(--paper)" : "var(--ink)";
      text.textContent = value.toPrecision(2);
      svg.append(text);
    }
  });
  return element("figure", {}, svg, element("figcaption", {}, `${title}, ±${shownValue(most)}`));
}

function layerRows(data, layer) {
  const rows = [["layer", "out", "in", ...data.degradations.map((name) => `score ${name}`), ...data.contrasts.map((name) => `rank ${name}`)]];
  for (let row = 0; row < layer.out; row++) for (let column = 0; column < layer.in; column++) {
    const place = row * layer.in + column;
    rows.push([layer.name, row, column, ...data.degradations.map((name) => layer.scores[name][place]), ...data.contrasts.map((name) => layer.ranks[name][place])]);
  }
  return rows;
}

function kernelsText(kernels) {
  const drawn = [...kernels.querySelectorAll("svg")], space = "http://www.w3.org/2000/svg";
  const root = document.createElementNS(space, "svg");
  let x = 10;
  for (const svg of drawn) {
    const copy = svg.cloneNode(true), originals = svg.querySelectorAll("*");
    copy.querySelectorAll("*").forEach((node, n) => { node.setAttribute("fill", getComputedStyle(originals[n]).fill); node.removeAttribute("style"); });
    copy.setAttribute("x", x); copy.setAttribute("y", 24);
    const title = document.createElementNS(space, "text");
    title.setAttribute("x", x); title.setAttribute("y", 16); title.setAttribute("font-size", 11); title.setAttribute("font-family", "sans-serif");
    title.textContent = svg.parentNode.querySelector("figcaption").textContent;
    root.append(title, copy);
    x += Math.max(Number(svg.getAttribute("width")), 150) + 14;
  }
  root.setAttribute("width", x); root.setAttribute("height", Number(drawn[0].getAttribute("height")) + 34);
  return new XMLSerializer().serializeToString(root);
}
