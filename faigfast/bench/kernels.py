"""measure_kernels(): the C++ convolution's share of the processor's peak."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from faigfast.backend.cpu import extension as _extension
from faigfast.bench.layer import PASSES, ConvolutionLayer, LinearLayer
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import markdown

CHANNELS = (16, 32, 64, 128, 256)
SIZES = (16, 32, 64, 128, 256, 512)
MOST_FLOPS = 4e10  # of one call; larger layers are skipped
PIXELS = 1 << 14  # least number, over all points
SECONDS = 0.3  # of one measurement
# Other layers, of 64² pixels (or as many rows) at 4 points.
OTHERS: dict[str, Callable[[], ConvolutionLayer | LinearLayer]] = {
    **{
        f"1×1, {n} → {m}": partial(ConvolutionLayer, n, 64, 4, kernel=1, outputs=m)
        for n, m in ((16, 16), (32, 32), (64, 64), (128, 128), (256, 256), (64, 256), (256, 64))
    },
    **{
        f"linear, {n} → {m}": partial(LinearLayer, n, 64**2, 4, m)
        for n, m in ((32, 64), (60, 120), (180, 540))
    },
    **{
        f"{k}×{k}, {n} → {m}": partial(ConvolutionLayer, n, 64, 4, kernel=k, outputs=m)
        for k, n, m in (
            (2, 64, 64), (4, 64, 64), (5, 16, 16), (5, 32, 32), (5, 64, 64), (5, 128, 128),
            (7, 64, 64), (9, 32, 32), (9, 64, 64), (5, 3, 64), (9, 3, 64), (5, 64, 3), (9, 64, 3),
        )
    },
    **{
        f"3×3, stride {stride}, {n} → {m}": partial(
            ConvolutionLayer, n, 64, 4, stride=stride, outputs=m
        )
        for stride, n, m in ((2, 64, 64), (2, 64, 128))
    },
    "2×2, stride 2, 64 → 128": partial(
        ConvolutionLayer, 64, 64, 4, kernel=2, stride=2, outputs=128
    ),
    "3×3, dilation 2, 64 → 64": partial(ConvolutionLayer, 64, 64, 4, dilation=2),
    "3×3, 4 groups, 64 → 64": partial(ConvolutionLayer, 64, 64, 4, groups=4),
    **{
        f"{k}×{k}, depthwise, 64": partial(ConvolutionLayer, 64, 64, 4, kernel=k, groups=64)
        for k in (3, 5, 7)
    },
    "4×4, transposed, stride 2, 64 → 64": partial(
        ConvolutionLayer, 64, 64, 4, kernel=4, stride=2, transposed=True
    ),
    "9×9, transposed, stride 2, 64 → 3": partial(
        ConvolutionLayer, 64, 64, 4, kernel=9, stride=2, transposed=True, outputs=3
    ),
}  # fmt: skip
# Direct convolution has 9·16 multiplications where Winograd's has 36.
CEILING = 4


@dataclass
class Kernels:
    """Effective GFLOP/s of the convolution with bias and ReLU, and of torch's.

    Attributes
    ----------
    peak : dict of str to float
        GFLOP/s of multiply-adds in registers, by instruction set.
    found : list of dict
        Instruction set ("torch" for torch's own), channels, size, points, pass, GFLOP/s.
    errors : dict of str to float
        Worst relative L2 error against float64, by instruction set.
    others : list of dict
        Layer of `OTHERS`, pass, GFLOP/s of torch, and of our kernels where they serve the layer, in
        the best instruction set.
    """

    peak: dict[str, float]
    found: list[dict[str, Any]]
    errors: dict[str, float]
    others: list[dict[str, Any]]
    machine: dict[str, Any] = field(default_factory=describe_machine)
    versions: dict[str, str] = field(default_factory=describe_versions)
    command: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Write one Markdown table for each instruction set."""
        parts = []
        for isa, peak in self.peak.items():
            rows = []
            for channels in CHANNELS:
                for size in SIZES:
                    cells = [self._cell(isa, channels, size, part) for part in PASSES]
                    if any(cells):
                        rows.append((f"{channels}, {size}²", *cells))
            head = ("channels, size", *PASSES)
            parts.append(
                f"### {isa}\n\nPeak of multiply-adds in registers: {peak:.0f} GFLOP/s. Worst "
                f"relative L2 error of any pass: {self.errors[isa]:.1e}.\n\n{markdown(head, rows)}"
            )
        parts.append(self._table_of_others())
        parts.append(
            f"{self.machine['cpu']}, {self.machine['threads']} threads, torch "
            f"{self.versions['torch']} with {self.machine['instructions']}. A cell of the first "
            "tables has four figures: effective GFLOP/s, which is the work of a direct convolution "
            "divided by the time; this speed divided by the peak; this speed divided by the "
            "ceiling, which is four times the peak; this speed divided by the speed of torch's own "
            "convolution (oneDNN) in the same run."
        )
        return "\n\n".join(parts)

    def _table_of_others(self) -> str:
        isa = list(self.peak)[-1]

        def cell(row: dict[str, Any]) -> str:
            torch_speed, own_speed = row["torch"], row["own"]
            of_torch = f"{torch_speed:.0f} · {torch_speed / self.peak[isa]:.2f}"
            if own_speed is None:
                return of_torch
            return f"{of_torch} → {own_speed:.0f} · **{own_speed / torch_speed:.1f}×**"

        names = dict.fromkeys(row["layer"] for row in self.others)
        rows = [
            (name, *(cell(row) for row in self.others if row["layer"] == name)) for name in names
        ]
        return (
            f"### Other layers, {isa}\n\nEvery layer has a bias; convolutions also have a ReLU. A "
            "cell starts with the speed of torch's own operation (oneDNN), which the engine calls "
            "point by point: effective GFLOP/s, and this speed divided by the peak. If a kernel of "
            "faigfast supports the layer, two figures follow the arrow: the kernel's effective "
            "GFLOP/s, and its speed divided by torch's speed.\n\n"
            f"{markdown(('layer', *PASSES), rows)}"
        )

    def _cell(self, isa: str, channels: int, size: int, part: str) -> str:
        def speed(who: str) -> float | None:
            key = (who, channels, size, part)
            return next(
                (
                    row["gflops"]
                    for row in self.found
                    if (row["isa"], row["channels"], row["size"], row["pass"]) == key
                ),
                None,
            )

        own_speed, torch_speed = speed(isa), speed("torch")
        if own_speed is None or torch_speed is None:
            return ""
        share = own_speed / self.peak[isa]
        ratio = own_speed / torch_speed
        return f"{own_speed:.0f} · {share:.2f} · {share / CEILING:.2f} · {ratio:.1f}×"

    def figure(self, path: str | os.PathLike[str]) -> None:
        """Draw the best instruction set beside torch as an SVG."""
        from faigfast.analysis.report.drawing import COLOURS, new_figure
        from faigfast.analysis.report.palette import GRAY

        best = list(self.peak)[-1]
        figure, (axes,) = new_figure(1, len(PASSES), 11, 3.6)
        for axis, part in zip(axes, PASSES, strict=True):
            for channels, colour in zip(CHANNELS, COLOURS, strict=False):
                for who, style in ((best, "-"), ("torch", ":")):
                    rows = [
                        (row["size"], row["gflops"])
                        for row in self.found
                        if (row["isa"], row["channels"], row["pass"]) == (who, channels, part)
                    ]
                    label = f"{channels} channels" if who == best else None
                    axis.plot(*zip(*rows, strict=True), style, color=colour, label=label)
            axis.axhline(self.peak[best], color=GRAY, linewidth=0.8)
            axis.set_xscale("log", base=2)
            axis.set_ylim(0)
            axis.set_title(part)
            axis.set_xlabel("height and width")
        axes[0].set_ylabel("effective GFLOP/s")
        axes[-1].legend(fontsize=8, title=f"{best}; dotted: torch", title_fontsize=8)
        figure.savefig(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON."""
        write_json(path, asdict(self))


def measure_kernels(*, progress: bool = True) -> Kernels:
    """Measure the convolution in every instruction set that runs here, and torch's, in turn.

    Raises
    ------
    ValueError
        If the extension is missing.
    """
    if _extension.module is None:
        raise ValueError(f"there are no kernels to measure: {_extension.missing}")
    isas = list(_extension.module.supported())
    peak = {isa: _with_isa(isa, _peak) for isa in isas}
    speeds: list[dict[str, Any]] = []
    errors = dict.fromkeys(isas, 0.0)
    layers = [
        (c, s) for c in CHANNELS for s in SIZES if 18 * c * c * s * s < MOST_FLOPS
    ]  # fmt: skip
    for channels, size in progress_bar(layers, unit="layer", disable=not progress):
        points = max(1, PIXELS // size**2)
        layer = ConvolutionLayer(channels, size, points)
        for isa in isas:
            errors[isa] = max(errors[isa], _with_isa(isa, partial(layer.error, "cpu")))
        for part in PASSES:
            runs: dict[str, Callable[[], Any]] = dict.fromkeys(
                isas, partial(layer.run, part, "cpu")
            )
            runs["torch"] = partial(layer.run, part, "")
            times = _interleaved(runs)
            for who, seconds in times.items():
                speeds.append(
                    {"isa": who, "channels": channels, "size": size, "points": points,
                     "pass": part, "gflops": layer.flops / statistics.median(seconds) / 1e9}
                )  # fmt: skip
    others = []
    for name, make in progress_bar(OTHERS.items(), unit="layer", disable=not progress):
        other = make()
        errors[isas[-1]] = max(errors[isas[-1]], _with_isa(isas[-1], partial(other.error, "cpu")))
        for part in PASSES:
            runs = {"torch": partial(other.run, part, "")}
            if other.kernel(part, "cpu") != other.kernel(part, ""):
                runs[isas[-1]] = partial(other.run, part, "cpu")
            gflops = {
                who: other.flops / statistics.median(seconds) / 1e9
                for who, seconds in _interleaved(runs).items()
            }
            own_speed = gflops.get(isas[-1])
            others.append({"layer": name, "pass": part, "torch": gflops["torch"], "own": own_speed})
    return Kernels(peak, speeds, errors, others)


def _with_isa(isa: str, run: Callable[[], Any]) -> Any:
    """Run with an instruction set; "torch" leaves it unset."""
    before = os.environ.get("FAIGFAST_ISA")
    if isa != "torch":
        os.environ["FAIGFAST_ISA"] = isa
    try:
        return run()
    finally:
        os.environ.pop("FAIGFAST_ISA", None)
        if before is not None:
            os.environ["FAIGFAST_ISA"] = before


def _interleaved(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    for name, run in runs.items():
        _with_isa(name, run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS or len(times["torch"]) < 3:
        for name, run in runs.items():
            times[name].append(_with_isa(name, partial(_timed, run)))
    return times


def _timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _peak() -> float:
    """GFLOP/s, the best of a few runs."""
    threads, speeds = torch.get_num_threads(), []
    for _ in range(20):
        start = time.perf_counter()
        operations = _extension.module.multiply_add(100_000, threads)  # type: ignore[union-attr]
        speeds.append(operations / (time.perf_counter() - start) / 1e9)
    return max(speeds)
