"""Tables of a sweep: its units, overlaps, stability, and Parquet files."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from faigfast.filters.ranking import number_of_filters
from faigfast.filters.resampled_images import is_best, kept_shares, resampled
from faigfast.io.atomic import atomic_write
from faigfast.sweeps.reductions import MEMORY, Parts, common_images, weighted
from faigfast.sweeps.score_files import score_file
from faigfast.sweeps.selection import Selection

if TYPE_CHECKING:
    import pandas

    from faigfast.sweeps.opened import Sweep

INTERVAL = (0.025, 0.5, 0.975)
VALUES = ("completeness", "error", "barrier")


def unit_table(folder: Path, selection: Selection) -> "pandas.DataFrame":
    """One row per finished unit."""
    catalogue, records = selection.catalogue, selection.records
    columns: dict[str, Any] = {}
    for kind in ("pair", "degradation", "setting"):
        names = np.array([entry["name"] for entry in catalogue.entries(kind)], dtype=object)
        columns[kind] = names[records[kind]]
    images = np.array([len(entry["images"]) for entry in catalogue.entries("shard")], np.int64)
    columns["images"] = images[records["shard"]]
    columns["bytes"] = records["size"].astype(np.int64)
    columns["file"] = [
        str(score_file(folder, key.tobytes().hex()).relative_to(folder)) for key in records["id"]
    ]
    return _pandas().DataFrame(columns)


def overlap_table(
    sweep: "Sweep",
    between: str,
    a: str | None,
    fraction: float,
    against: Any,
    pair: str | None,
    setting: str | None,
) -> "pandas.DataFrame":
    """Share of common filters, [K, K] by name; arguments as in `Sweep.overlap`."""
    names = {"setting": sweep.settings, "pair": sweep.pairs, "degradation": sweep.degradations}
    if between not in names:
        raise ValueError(f"between is {between!r}; expected one of {', '.join(names)}")
    sets = []
    for name in names[between]:
        chosen = {"setting": setting, "pair": pair, "degradation": a, between: name}
        top = sweep.top(
            chosen["degradation"], fraction, against, pair=chosen["pair"], setting=chosen["setting"]
        )
        sets.append(set(top.indices.tolist()))
    shares = [[len(one & other) / len(one) for other in sets] for one in sets]
    return _pandas().DataFrame(shares, index=names[between], columns=names[between])


def stability_table(
    sweep: "Sweep",
    parts: Parts,
    scored: Tensor,
    fraction: float,
    counts: Sequence[int] | None,
    draws: int,
    seed: int,
) -> "pandas.DataFrame":
    """Overlap of samples of images with all images; arguments as in `Sweep.stability`."""
    images = len(common_images(sweep, parts))
    if counts is None:
        counts = [2**n for n in range(images.bit_length()) if 2**n < images] + [images]
    for count in counts:
        if not 1 <= count <= images:
            raise ValueError(f"counts hold {count}; expected 1 to {images}, the number of images")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.cat([resampled(images, count, draws, generator) for count in counts])
    take = number_of_filters(fraction, len(scored), int(scored.sum()))
    best = is_best(weighted(sweep, parts, None)[0, scored], take)
    step = max(1, MEMORY // (8 * len(scored)))  # samples that one pass can sum
    shares: list[float] = []
    for start in range(0, len(rows), step):
        sums = weighted(sweep, parts, rows[start : start + step])  # [R, F]
        shares += kept_shares(best, sums[:, scored], take)
    by_count = np.array(shares).reshape(len(counts), draws)
    low, middle, high = np.quantile(by_count, INTERVAL, axis=1)
    return _pandas().DataFrame(
        {"images": list(counts), "overlap": middle, "low": low, "high": high}
    )


def write_parquet(sweep: "Sweep", folder: Path) -> None:
    """Write a file for each pair, degradation and setting, shard by shard."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'faigfast[sweep]'") from None
    number = 0
    for pair in sweep.pairs:
        filters = len(sweep.index(pair))
        for degradation in sweep.degradations:
            for setting in sweep.settings:
                writer = None
                names = {"pair": pair, "degradation": degradation, "setting": setting}
                units = sweep.finished(pair, degradation, setting)
                if not units:
                    continue
                with atomic_write(folder / f"part-{number:05d}.parquet") as temporary:
                    for unit in units:
                        table = _arrow_table(arrow, sweep.read(unit), names, filters)
                        writer = writer or parquet.ParquetWriter(temporary, table.schema)
                        writer.write_table(table)
                    if writer is not None:
                        writer.close()
                number += 1


def _arrow_table(arrow: Any, unit: Any, names: dict[str, str], filters: int) -> Any:
    count = len(unit.scores)
    no_image = (None,) * (count - len(unit.images))  # the row of weights alone, in float64
    values = unit.scores.float() if no_image else unit.scores
    scores = arrow.array(values.flatten().numpy())
    columns = {name: arrow.array([value] * count) for name, value in names.items()}
    columns["image"] = arrow.array(unit.images + no_image, arrow.string())
    columns["name"] = arrow.array(unit.names + no_image, arrow.string())
    columns["loss_baseline"] = arrow.array(unit.tensors["losses"][:, 0].numpy())
    columns["loss_target"] = arrow.array(unit.tensors["losses"][:, 1].numpy())
    for name in VALUES:
        columns[name] = arrow.array(unit.tensors[name].numpy())
    columns["scores"] = arrow.FixedSizeListArray.from_arrays(scores, filters)
    return arrow.table(columns)


def _pandas() -> Any:
    try:
        return import_module("pandas")
    except ImportError:
        raise ImportError("a table needs pandas: pip install 'faigfast[report]'") from None
