"""Forms: other names or other tensors under which files hold the networks of the zoo."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from faigfast.zoo.esrgan_names import EsrganNames, TrunkNames
from faigfast.zoo.span_branches import SpanBranches


class Form(Protocol):
    """One form of a family's state dict."""

    name: str

    def holds(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict has this form, by its names."""

    def read(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the tensors of the zoo's network, by its names.

        Raises
        ------
        ValueError
            If tensors are missing or do not go together.
        """

    def write(
        self, own: Mapping[str, Tensor], like: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], str]:
        """Give the tensors under the names of a state dict of this form, and a remark or ""."""


FORMS: tuple[Form, ...] = (EsrganNames(), TrunkNames(), SpanBranches())


def form_of(state: Mapping[str, Tensor]) -> Form | None:
    """Find the form of a state dict; None if it has the names of the zoo's networks, or unknown."""
    return next((form for form in FORMS if form.holds(state)), None)
