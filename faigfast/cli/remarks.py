"""Remarks below tables: which crops were attributed and measured."""

from faigfast.analysis.evaluation import Crops
from faigfast.analysis.study import Study
from faigfast.integration.cautions import few_images_sentence
from faigfast.io.text_table import counted


def describe_attributed(study: Study, rivals: bool = False) -> str:
    """Describe the attributed crops of a study, as a remark below a table.

    Parameters
    ----------
    study : Study
        Of the command.
    rivals : bool
        Whether methods with gradients rank beside FAIG.
    """
    if study.given is not None:
        measured = f"{_crops(study.attributed)} measured too, to their advantage"
        given = f"Attributed: {counted(study.given.images, 'image')}, {study.given.sampling}"
        text = f"{given}; rivals with gradients: on {measured}." if rivals else f"{given}."
        return _with_few(text, study.given.images)
    text = f"Attributed: {_crops(study.attributed)}, {counted(study.steps, 'point')}."
    return _with_few(text, len(study.attributed.names))


def describe_crops(data: Crops) -> str:
    """Give the number, the size and the photographs of crops."""
    size = data.gt.shape[-1]
    return f"{_crops(data)} of {size}×{size} from {', '.join(dict.fromkeys(data.photographs))}"


def describe_measured(study: Study) -> str:
    """Describe the measured crops of a study, as a remark below a table."""
    return (
        f"{describe_crops(study.measured)}; border of {study.border} left out, output rounded to "
        "8 bit. ± is half of a 95 % confidence interval over crops, narrower than that over "
        "photographs."
    )


def describe(study: Study, rivals: bool = False) -> str:
    """Describe the measured and attributed crops of a study, as a remark below a table."""
    return f"{describe_measured(study)} {describe_attributed(study, rivals)}"


def _with_few(text: str, images: int) -> str:
    return f"{text} {few_images_sentence(images)}".rstrip()


def _crops(data: Crops) -> str:
    return counted(len(data.names), "crop")
