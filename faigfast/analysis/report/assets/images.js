"use strict";
// Images to compare: one zoom for all of a scene, differences, an A/B slider; and dials.

function startScene(scene) {
  const shots = scene.querySelector(".shots");
  const images = [...shots.querySelectorAll("img")];
  const names = [...shots.querySelectorAll("figcaption b")].map((name) => name.textContent);
  const view = startZoom(scene, shots);
  const bar = element("div", { class: "controls screen" });
  bar.append(labelled("Zoom", view.slider), view.reset, ...differenceControls(shots, images, names));
  shots.before(bar);
  shots.after(compareBox(scene, images, names));
}

// Zoom and position are variables of CSS on the scene, so that all of its images follow.
function startZoom(scene, shots) {
  const view = { zoom: 1, x: 0, y: 0 };
  const slider = element("input", { type: "range", min: 1, max: 8, step: 0.5, value: 1 });
  const apply = () => {
    const most = 50 * (1 - 1 / view.zoom);
    const within = (value) => Math.max(-most, Math.min(most, value));
    view.x = within(view.x); view.y = within(view.y);
    scene.style.setProperty("--zoom", view.zoom);
    scene.style.setProperty("--x", `${view.x}%`);
    scene.style.setProperty("--y", `${view.y}%`);
    slider.value = view.zoom;
  };
  const set = (changes) => { Object.assign(view, changes); apply(); };
  slider.addEventListener("input", () => set({ zoom: Number(slider.value) }));
  const reset = element("button", { type: "button", onclick: () => set({ zoom: 1, x: 0, y: 0 }) }, "Reset zoom");
  shots.addEventListener("keydown", (event) => {
    const step = 6 / view.zoom;
    const moves = { ArrowLeft: { x: view.x + step }, ArrowRight: { x: view.x - step }, ArrowUp: { y: view.y + step }, ArrowDown: { y: view.y - step },
      "+": { zoom: Math.min(8, view.zoom + 0.5) }, "=": { zoom: Math.min(8, view.zoom + 0.5) }, "-": { zoom: Math.max(1, view.zoom - 0.5) } };
    if (!moves[event.key]) return;
    event.preventDefault();
    set(moves[event.key]);
  });
  let held = null;
  scene.addEventListener("pointerdown", (event) => {
    const lens = event.target.closest(".lens");
    if (!lens || view.zoom === 1) return;
    held = { px: event.clientX, py: event.clientY, x: view.x, y: view.y, side: lens.clientWidth };
    lens.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  scene.addEventListener("pointermove", (event) => {
    if (!held) return;
    const moved = (now, then) => (100 * (now - then)) / held.side / view.zoom;
    set({ x: held.x + moved(event.clientX, held.px), y: held.y + moved(event.clientY, held.py) });
  });
  for (const name of ["pointerup", "pointercancel"]) scene.addEventListener(name, () => { held = null; });
  return { slider, reset };
}

// A difference is the browser's own blend of two images, made brighter.
function differenceControls(shots, images, names) {
  const against = element("select", {}, options(["off", ...names], 0));
  const amplify = element("select", {}, [2, 4, 8, 16].map((factor) => element("option", { value: factor, selected: factor === 4 }, `× ${factor}`)));
  const apply = () => {
    const chosen = Number(against.value) - 1;
    shots.style.setProperty("--amplify", amplify.value);
    for (const image of images) {
      const lens = image.parentNode;
      lens.querySelectorAll("img + img").forEach((other) => other.remove());
      lens.classList.toggle("differs", chosen >= 0);
      if (chosen >= 0) lens.append(element("img", { src: images[chosen].src, alt: `less ${names[chosen]}` }));
    }
  };
  against.addEventListener("change", apply);
  amplify.addEventListener("change", apply);
  return [labelled("Difference to", against), labelled("brighter", amplify)];
}

function compareBox(scene, images, names) {
  const start = [Number(scene.dataset.a), Number(scene.dataset.b)];
  const lower = element("img", { alt: "" }), upper = element("img", { alt: "" });
  const over = element("div", { class: "over" }, upper);
  const lens = element("div", { class: "lens" }, lower, over, element("div", { class: "knife" }));
  const selects = start.map((place) => element("select", {}, options(names, place)));
  const apply = () => {
    [lower, upper].forEach((image, n) => {
      image.src = images[selects[n].value].src;
      image.alt = `${"AB"[n]}: ${images[selects[n].value].alt}`;
    });
  };
  for (const select of selects) select.addEventListener("change", apply);
  const slider = element("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Border between A and B, percent from the left" });
  slider.addEventListener("input", () => lens.style.setProperty("--cut", `${slider.value}%`));
  apply();
  return element("details", { class: "compare", open: scene.id === "scene-1" }, element("summary", {}, "A/B slider"), element("div", { class: "ends" }, labelled("A (left)", selects[0]), labelled("B (right)", selects[1])), lens, slider);
}

// Sliders choose one of the stacked images; the last axis varies fastest.
function startDial(dial) {
  const { axes, captions } = contentOf(dial);
  const images = [...dial.querySelectorAll(".stack img")];
  let rest = Number(dial.dataset.start);
  const starts = axes.map(() => 0);
  for (let n = axes.length - 1; n >= 0; n--) {
    starts[n] = rest % axes[n][1].length;
    rest = Math.floor(rest / axes[n][1].length);
  }
  const caption = element("output", { class: "readout", "aria-live": "polite" });
  const sliders = axes.map(([name, values], n) => element("input", { type: "range", min: 0, max: values.length - 1, value: starts[n], step: 1, "aria-label": `strength of ${name}` }));
  const show = () => {
    const places = sliders.map((slider) => Number(slider.value));
    const place = places.reduce((sum, value, n) => sum * axes[n][1].length + value, 0);
    images.forEach((image, n) => image.classList.toggle("current", n === place));
    const strengths = places.map((value, n) => `${axes[n][0]} at strength ${axes[n][1][value]}`);
    places.forEach((value, n) => sliders[n].setAttribute("aria-valuetext", `${axes[n][1][value]}`));
    caption.textContent = `${strengths.join(", ")}: ${captions[place]}`;
  };
  const bar = element("div", { class: "controls screen" }, sliders.map((slider, n) => { slider.addEventListener("input", show); return labelled(axes[n][0], slider); }));
  dial.querySelector(".stack").before(bar);
  dial.append(caption);
  show();
}
