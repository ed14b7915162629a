"""Messages of argparse and jsonargparse about wrong arguments, in words that users know."""

import re
from collections.abc import Collection, Sequence

from faigfast.cli.suggestions import words_of
from faigfast.io.nearest_name import hint

TYPES = {"int": "an integer", "float": "a number", "str": "text", "dict": "JSON", "bool": "a bool"}


def explain(message: str, commands: Collection[str], options: Collection[str]) -> str:
    """Reword a message.

    Parameters
    ----------
    message : str
        Of argparse or jsonargparse, in one line.
    commands : collection of str
        Names of all commands.
    options : collection of str
        Option strings of the command that was given; empty without a command.
    """
    if message.startswith('expected "command"'):
        return f"no command is given; expected one of {', '.join(commands)}"
    if match := re.match(r"argument (\S+): invalid choice: '(.*?)' \(choose from (.+)\)$", message):
        name, word, names = match[1], match[2], words_of(match[3])
        expected = f"expected one of {', '.join(names)}"
        if name == "command":
            return f"there is no command {word!r}{hint(word, names)}; {expected}"
        return f"{shown(name)} is {word!r}{hint(word, names)}; {expected}"
    if match := re.match(r"[Uu]nrecognized arguments: (.+)$", message):
        return _unknown(match[1].split(), options)
    if match := re.match(r"the following arguments are required: (.+)$", message):
        names = [_as_option(name.rpartition(".")[2], options) for name in match[1].split(", ")]
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
    if match := re.match(r"argument (\S+): expected (.+)$", message):
        return f"{shown(match[1])} has too few values; expected {match[2]}"
    if match := re.match(r"argument (\S+): (.+)$", message):
        return _typed(match[2])
    if match := re.match(r'Parser key "(?:\w+\.)?(\w+)"(?: element \d+)?: (.+)$', message):
        return f"{_as_option(match[1], options)}: {_typed(match[2])}"
    return _typed(message)


def shown(name: str) -> str:
    """Give the spelling of an option that help shows, of "--crop-to/--crop_to"."""
    return name.split("/")[0]


def _as_option(name: str, options: Collection[str]) -> str:
    """Write the name of an option as on the command line; arguments keep theirs."""
    dashed = f"--{name.replace('_', '-')}"
    return dashed if dashed in options else name


def _unknown(words: Sequence[str], options: Collection[str]) -> str:
    """Name the unknown options with the nearest ones, or the words too many."""
    unknown = [word.partition("=")[0] for word in words if word.startswith("-")]
    if not unknown:
        return f"{' '.join(words)}: too many words; expected options, which begin with --"
    names = [name.lstrip("-") for name in options]
    hints = (hint(_bare(word), names).replace("mean '", "mean '--") for word in unknown)
    named = (word + text for word, text in zip(unknown, hints, strict=True))
    return f"there is no option {', '.join(named)}"


def _bare(word: str) -> str:
    """Give the name of an option without dashes in front."""
    return word.lstrip("-").replace("_", "-")


def _typed(text: str) -> str:
    """Replace the names of Python's types."""
    text = re.sub(
        r"Expected an? <class '(\w+)'>\. Got value: (.+)$",
        lambda match: f"{match[2]!r} is given; expected {TYPES.get(match[1], match[1])}",
        text,
    )
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
