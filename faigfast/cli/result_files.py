"""The files of one attribution: scores, a table of filters and their rankings."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from faigfast.analysis.data_frames import write_columns, write_csv
from faigfast.cli.run_folder import FILTERS_COLUMNS, FILTERS_CSV, SCORES
from faigfast.io.atomic import atomic_write
from faigfast.result import Attribution

LONGEST_NAME = 255  # bytes that file systems take


def planned_files(degradations: Iterable[str], top: Sequence[float]) -> list[str]:
    """Name all files that may be written; refuse names that are too long or the same."""
    files = [SCORES, FILTERS_CSV, FILTERS_COLUMNS]
    for name in degradations:
        files += [_index_file(name), *(_index_file(name, share) for share in dict.fromkeys(top))]
    for file in files:
        if len(file.encode()) > LONGEST_NAME:
            raise ValueError(
                f"the degradation of the file {file!r} has a long name; expected at most "
                f"{LONGEST_NAME} bytes, with NAME=RECIPE or NAME=FOLDER"
            )
        if files.count(file) > 1:
            raise ValueError(f"two degradations write the file {file!r}; expected other names")
    return files


def _index_file(degradation: str, share: float | None = None) -> str:
    return f"{degradation}_index.txt" if share is None else f"{degradation}_top_{share}_index.txt"


def rankable(result: Attribution, name: str) -> bool:
    """Whether the filters of a degradation can be ranked."""
    try:
        result.ranking(name)
    except ValueError:
        return False
    return True


def write_files(
    path: Path, result: Attribution, top: Sequence[float], notes: list[str]
) -> list[str]:
    """Write all files except the manifest; give their names."""
    result.save(path / SCORES)
    files = [SCORES]
    try:
        frame = result.to_frame()
    except ImportError as error:
        notes.append(f"no {FILTERS_CSV}: {error}")
    else:
        with atomic_write(path / FILTERS_CSV) as temporary:
            write_csv(temporary, frame)
        write_columns(path / FILTERS_COLUMNS, frame)
        files += [FILTERS_CSV, FILTERS_COLUMNS]
    for name in result.degradations:
        file = _index_file(name)
        try:
            ranking = result.ranking(name)
        except ValueError as error:  # all its scores are 0
            notes.append(f"no {file}: {error}")
            continue
        ranking.save(path / file)
        files.append(file)
        for share in top:
            file = _index_file(name, share)
            try:
                top_filters = result.top(name, share)
            except ValueError as error:  # --parameters scores fewer filters
                notes.append(f"no {file}: {error}")
            else:
                top_filters.save(path / file)
                files.append(file)
    return files
