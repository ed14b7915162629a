"""Weights of a network under the names of a checkpoint: without a prefix, or in another form."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from faigfast.models.state import check_same_layout
from faigfast.zoo.blocks import is_computed
from faigfast.zoo.forms import form_of
from faigfast.zoo.name_prefixes import likely_prefixes


@dataclass(frozen=True)
class WrittenNames:
    """Names of a checkpoint that fit a network best.

    Attributes
    ----------
    stored : dict of str to Tensor
        The checkpoint's tensors, names without the prefix.
    prefix : str
        Beginning of all names.
    """

    stored: dict[str, Tensor]
    prefix: str

    def write(
        self, state: Mapping[str, Tensor], computed: tuple[str, ...], place: str
    ) -> tuple[dict[str, Tensor], str]:
        """Give a network's weights under these names, and a remark or "".

        Parameters
        ----------
        state : mapping of str to Tensor
            The weights under the network's names.
        computed : tuple of str
            Ends of the names of tensors that the network computes; the stored ones are kept.
        place : str
            Name of the checkpoint for messages.

        Raises
        ------
        ValueError
            If names or shapes differ.
        """

        def compared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {k: v for k, v in tensors.items() if not is_computed(k, computed)}

        form = form_of(self.stored)
        own = compared(state)
        # A network of the user's may have the file's own names.
        if form is not None and not _same_names(own, compared(self.stored)):
            check_same_layout(own, compared(form.read(self.stored)), "`model`", place)
            return form.write(state, self.stored)
        check_same_layout(own, compared(self.stored), "`model`", place)
        return {name: own.get(name, value) for name, value in self.stored.items()}, ""

    def shared(self, state: Mapping[str, Tensor]) -> int:
        """Count the names that a network has too."""
        form = form_of(self.stored)
        names = set(self.stored)
        if form is not None:
            names |= set(form.read(self.stored))
        return len(names & set(state))


def closest_names(stored: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> WrittenNames:
    """Find the prefix without which a checkpoint shares most names with a network."""
    candidates = [
        WrittenNames({name[len(prefix) :]: value for name, value in stored.items()}, prefix)
        for prefix in likely_prefixes(stored)
    ]
    return max(candidates, key=lambda names: names.shared(state))


def _same_names(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys()
