"""Tables in markdown, from the lines of the results file alone."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .items import ITEMS
from .results import BEGUN, COMPLETE, PASSED, Line

PASSES = ("forward", "input gradient", "weight gradient")
WHO = ("torch", "cudnn", "triton", "cuda", "hopper")
NONE = "–"

Steps = dict[str, dict[str, Line]]  # item → step → its newest line


def report(lines: Sequence[Line]) -> str:
    """Give all tables for the device of the newest line."""
    if not lines:
        return "Nothing is recorded yet."
    last = lines[-1]
    steps: Steps = {}
    for line in lines:
        if line.get("device") == last.get("device"):
            steps.setdefault(line["item"], {})[line["step"]] = line
    steps = {name: steps[name] for name in (*ITEMS, *steps) if name in steps}
    sections = (
        _items, _ceilings, _program, _one_shape, _layers, _calls, _checks, _texts, _reasons
    )  # fmt: skip
    parts = [_origin(lines, last), *(_shown(section, steps) for section in sections)]
    return "\n\n".join(filter(None, parts))


def _shown(section: Callable[[Steps], str], steps: Steps) -> str:
    """Give a section, or say why its lines cannot be shown: the session must go on."""
    try:
        return section(steps)
    except (ArithmeticError, KeyError, TypeError, ValueError) as problem:
        return f"{section.__name__.strip('_')} cannot be shown: {problem!r}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out a table; empty where there are no rows."""
    body = [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
    if not body:
        return ""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", f"| {' | '.join(rule)} |", *body])


def _titled(title: str, text: str) -> str:
    return f"### {title}\n\n{text}" if text else ""


def _origin(lines: Sequence[Line], last: Line) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in last.get("versions", {}).items())
    commits = dict.fromkeys(str(line.get("commit")) for line in lines)
    days = sorted({str(line.get("time", ""))[:10] for line in lines})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{last.get('device')}; {versions}; commit {', '.join(commits)}; {when}."


def _items(steps: Steps) -> str:
    rows = []
    for name, lines in steps.items():
        own = {step: line for step, line in lines.items() if step}
        counts: dict[str, int] = {}
        for line in own.values() or lines.values():
            state = "interrupted" if line["state"] == BEGUN else line["state"]
            counts[state] = counts.get(state, 0) + 1
        ended = ", ".join(f"{number} {state}" for state, number in counts.items())
        if own and "" in lines and lines[""]["state"] != COMPLETE:
            ended += f"; then {lines['']['state']}"
        seconds = sum(line.get("seconds", 0) for line in own.values())
        newest = list(lines.values())[-1].get("sources")
        now = name in ITEMS and newest == ITEMS[name].sources_hash()
        rows.append((name, ended, f"{seconds:.1f}", "these" if now else "older"))
    return _titled("Items", table(("item", "steps", "seconds", "sources"), rows))


def _figures(steps: Steps, item: str, step: str) -> dict[str, Any]:
    line = steps.get(item, {}).get(step)
    return line["figures"] if line is not None and line["state"] == PASSED else {}


def _ceiling(steps: Steps, step: str, work: str) -> float | None:
    figures = _figures(steps, "ceilings", step)
    return figures[work] / figures["seconds"] if figures else None


def _ceilings(steps: Steps) -> str:
    rows = []
    for step in ("matmul, fp16", "matmul, bf16"):
        speed = _ceiling(steps, step, "flops")
        if speed is not None:
            rows.append((f"{step}, 8192³", f"{speed / 1e12:.0f} TFLOP/s"))
    rate = _ceiling(steps, "copy", "bytes")
    if rate is not None:
        rows.append(("copy of 1 GiB, read and written", f"{rate / 1e12:.2f} TB/s"))
    return _titled("Ceilings", table(("", "median of 20 replays"), rows))


def _program(steps: Steps) -> str:
    rows: list[tuple[str, str, str]] = []
    ceiling = _ceiling(steps, "matmul, fp16", "flops")
    for step, line in steps.get("conv64", {}).items():
        for one in line.get("figures", {}).get("lines", []) if step else []:
            if "seconds" in one:
                speed = one["flops"] / one["seconds"]
                share = f", {speed / ceiling:.0%} of the product" if ceiling else ""
                shown = f"{one['seconds'] * 1e6:.1f} µs, {speed / 1e12:.0f} TFLOP/s{share}"
            else:
                holds = one.get("right", one.get("holds"))
                shown = "right" if holds else "wrong"
                other = one.get("with base offset")
                if other is not None and other != holds:
                    shown += f"; with a base offset {'right' if other else 'wrong'}"
            rows.append((step, one["name"], shown))
    text = table(("part", "case", "result"), rows)
    return _titled("Hopper convolution without Python", text)


def _one_shape(steps: Steps) -> str:
    who = [name for name in ("triton", "cuda", "hopper") if f"one-shape-{name}" in steps]
    names = dict.fromkeys(
        step for name in who for step in steps[f"one-shape-{name}"] if step
    )  # fmt: skip
    rows = [
        (step, *(_error(steps[f"one-shape-{name}"].get(step)) for name in who)) for step in names
    ]
    return _titled("One shape a kernel: error against float64", table(("", *who), rows))


def _error(line: Line | None) -> str:
    if line is None:
        return NONE
    error = line.get("figures", {}).get("error")
    if line["state"] == PASSED:
        return f"{error:.1e}"
    return line["state"] + (f", {error:.1e}" if error is not None else "")


def _layers(steps: Steps) -> str:
    who = [name for name in WHO if f"table-{name}" in steps]
    ceiling = _ceiling(steps, "matmul, fp16", "flops")
    names = dict.fromkeys(step for name in who for step in steps[f"table-{name}"] if step)
    rows = []
    for step in names:
        cells = []
        for name in who:
            line = steps[f"table-{name}"].get(step)
            if line is None or line["state"] != PASSED:
                cells.append(NONE if line is None else line["state"])
                continue
            figures = line["figures"]
            speed = figures["flops"] / figures["seconds"]
            share = f" ({speed / ceiling:.0%})" if ceiling else ""
            cells.append(f"{figures['seconds'] * 1e6:.1f}{share}")
        rows.append((step, *cells))
    title = "One 64→64 layer, fp16: µs by replays of graphs (share of the fp16 product)"
    return _titled(title, table(("", *who), rows))


def _calls(steps: Steps) -> str:
    head = ("", "backend", "s", "min–max", "first", "CPU s", "GPU s", "launches", "overlap")
    rows = []
    for name in ("torch", "cuda", "triton"):
        for step, line in steps.get(f"attribute-{name}", {}).items():
            figures = line.get("figures") if step else None
            if not figures:
                continue
            rows.append((
                step, name, f"{figures['seconds']:.4f}",
                f"{figures['least']:.4f}–{figures['most']:.4f}", f"{figures['first']:.1f}",
                f"{figures['cpu seconds']:.4f}", f"{figures['gpu seconds']:.4f}",
                figures["launches"], f"{figures['overlap']:.3f}",
            ))  # fmt: skip
    return _titled("`attribute`, 20 points", table(head, rows))


def _checks(steps: Steps) -> str:
    rows = []
    for item in ("memcheck", "racecheck", "tests"):
        for step, line in steps.get(item, {}).items():
            if step:
                figures = line.get("figures", {})
                told = figures.get("counted") or figures.get("summary") or ""
                rows.append((f"{item}, {step}", line["state"], told))
    return _titled("Tests and sanitizers", table(("", "state", "counted"), rows))


def _texts(steps: Steps) -> str:
    parts = []
    for item in ("end-to-end-256x1", "end-to-end-48x16", "experiment"):
        blocks = [_figures(steps, item, step).get("text") for step in steps.get(item, {})]
        text = "\n\n".join(filter(None, blocks))
        parts.append(_titled(item, f"```\n{text}\n```" if text else ""))
    return "\n\n".join(filter(None, parts))


def _reasons(steps: Steps) -> str:
    rows = [
        (f"{item}{f', {step}' if step else ''}", line["state"], line["reason"][:160])
        for item, lines in steps.items()
        for step, line in lines.items()
        if line.get("reason")
    ]
    return _titled("What did not pass, and why", table(("", "state", "reason"), rows))
