"""Messages of the library name its arguments; a command's user typed options."""

import re
from typing import Any

from faigfast.cli.other_run import ARGUMENTS

# Arguments of the library that have another name as an option; the first that a command has counts.
ALIASES = {
    "learning_rate": ("rate", "rates"),
    "fraction": ("fraction", "fractions"),
    "method": ("method", "methods"),
    "metric": ("metrics",),
}
SUBJECT = re.compile(r"(\w+)(?= (?:is|are|has|have|holds?|names?) )")


def with_options(message: str, options: Any) -> str:
    """Write options for the arguments that a message is about.

    Parameters
    ----------
    message : str
        Of an error or a note, such as "learning_rate is 0.0; expected a positive number".
    options : mapping or None
        Of the command.

    Examples
    --------
    >>> with_options("learning_rate is 0.0; expected a positive number", {"rate": 0.0})
    '--rate is 0.0; expected a positive number'
    >>> with_options("crop_to is 0; expected a positive integer", {"crop_to": 0})
    '--crop-to is 0; expected a positive integer'
    """
    given = set(dict(options or {})) - set(ARGUMENTS)
    subject = SUBJECT.match(message)
    if subject and (option := _option(subject[1], given)):
        message = option + message[subject.end() :]
    if option := _option("learning_rate", given):
        message = re.sub(r"\blearning_rate\b", option, message)
    return message


def _option(argument: str, given: set[str]) -> str:
    """Give the option of an argument; "" if the command has none."""
    names = [name for name in ALIASES.get(argument, (argument,)) if name in given]
    return f"--{names[0].replace('_', '-')}" if names else ""
