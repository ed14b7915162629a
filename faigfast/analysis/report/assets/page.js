"use strict";
// Elements, downloads, theme, contents and tables: what every page has.
window.addEventListener("error", () => { document.documentElement.dataset.error = "yes"; });

// Make an element: attributes by name, "on…" as listeners, children as nodes or text.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat());
  return node;
}

let labels = 0;

function labelled(text, control) {
  control.id = `control-${++labels}`;
  return element("span", { class: "labelled" }, element("label", { for: control.id }, text), control);
}

function options(names, chosen) {
  return names.map((name, n) => element("option", { value: n, selected: n === chosen }, name));
}

function contentOf(part) {
  return JSON.parse(part.querySelector("script[type='application/json']").textContent);
}

function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function csvText(rows) {
  // A spreadsheet computes a text cell that begins like a formula; an apostrophe keeps it text.
  const literal = (cell) =>
    typeof cell === "string" && /^[=+\-@\t\r]/.test(cell) && Number.isNaN(Number(cell)) ? `'${cell}` : `${cell ?? ""}`;
  const quoted = (cell) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return rows.map((row) => row.map((cell) => quoted(literal(cell))).join(",")).join("\r\n") + "\r\n";
}

function downloadButton(label, title, action) {
  return element("button", { type: "button", class: "screen", "aria-label": title, onclick: action }, label);
}

// Three states: the system's theme, light, dark.
function startTheme(changed) {
  const button = document.getElementById("theme");
  const states = [["as the system", ""], ["light", "light"], ["dark", "dark"]];
  let state = 0;
  button.addEventListener("click", () => {
    state = (state + 1) % states.length;
    button.textContent = `Theme: ${states[state][0]}`;
    document.documentElement.style.colorScheme = states[state][1];
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

// The list beside the page marks the section being read; on narrow screens it folds away.
function startContents() {
  const list = document.getElementById("contents");
  const wide = matchMedia("(min-width: 70rem)");
  const fold = () => { list.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  const links = [...list.querySelectorAll("a")];
  for (const link of links) link.addEventListener("click", () => { if (!wide.matches) list.open = false; });
  const headings = links.map((link) => document.querySelector(link.getAttribute("href")));
  const mark = () => {
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top < 120).length;
    links.forEach((link, n) => {
      if (n === passed - 1) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

// Heads sort, and every table can be saved: the rows for machines where the page has them, or as it is shown.
function startTable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, n) => {
    const button = element("button", { type: "button" }, head.textContent || "#");
    button.addEventListener("click", () => sortTable(table, head, n));
    head.replaceChildren(button);
  });
  const save = () => {
    const rows = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
    const machine = table.parentNode.querySelector("script");
    download(`${table.dataset.name}.csv`, machine ? JSON.parse(machine.textContent) : csvText(rows), "text/csv");
  };
  const bar = element("div", { class: "controls screen" });
  bar.append(downloadButton("CSV", `Download table ${table.dataset.name} as CSV`, save));
  table.closest(".scroll").after(bar);
}

function sortTable(table, head, n) {
  const body = table.tBodies[0];
  const up = head.getAttribute("aria-sort") === "descending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => {
    const text = row.cells[n].textContent, value = parseFloat(text.replace("−", "-"));
    return Number.isNaN(value) ? [1, text] : [0, value];
  };
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
  const rows = [...body.rows].map((row) => [key(row), row]);
  // Cells without a number stay below.
  rows.sort(([a], [b]) => a[0] - b[0] || compare(a[1], b[1]));
  body.append(...rows.map(([, row]) => row));
}
