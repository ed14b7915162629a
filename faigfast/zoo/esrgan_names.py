"""The two older styles of names of ESRGAN's checkpoints, translated into RRDBNet's."""

import re
from collections.abc import Mapping

from torch import Tensor

from faigfast.zoo.blocks import last_position

PARAMETER = r"\.(weight|bias)"


class _Names:
    """A style of names; subclasses translate one name."""

    name = ""
    first = ""  # a name that every network in this style has

    def holds(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict has names of this style."""
        return self.first in state

    def read(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the tensors by RRDBNet's names; unknown names stay as they are.

        Raises
        ------
        ValueError
            If two names belong to one tensor.
        """
        by_name = self._own_names(state)
        if len(by_name) < len(state):
            twice = next(name for name in state if name not in by_name.values())
            raise ValueError(f"RRDBNet has one tensor for {twice!r} and another name")
        return {own: state[name] for own, name in by_name.items()}

    def write(
        self, own: Mapping[str, Tensor], like: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], str]:
        """Give the tensors by the names of `like`, in its order."""
        by_name = {name: key for key, name in self._own_names(like).items()}
        return {name: own[by_name[name]] for name in like}, ""

    def _own_names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """Give the state dict's name for each of RRDBNet's names."""
        last = last_position(state, "model.")
        blocks = last_position(state, "model.1.sub.")
        return {self._own_name(name, last, blocks): name for name in state}

    def _own_name(self, name: str, last: int, blocks: int) -> str:
        raise NotImplementedError


class TrunkNames(_Names):
    """Names of ESRGAN's later code and of BSRGAN: `RRDB_trunk.0.RDB1.conv1`, `HRconv`."""

    name = "ESRGAN's names RRDB_trunk"
    first = "RRDB_trunk.0.RDB1.conv1.weight"

    def _own_name(self, name: str, last: int, blocks: int) -> str:
        if match := re.fullmatch(rf"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d){PARAMETER}", name):
            return "body.{}.rdb{}.conv{}.{}".format(*match.groups())
        head, _, end = name.partition(".")
        renamed = {"trunk_conv": "conv_body", "HRconv": "conv_hr"}.get(head, head)
        return f"{re.sub('^upconv', 'conv_up', renamed)}.{end}"


class EsrganNames(_Names):
    """Names of ESRGAN's first code: `model.1.sub.0.RDB1.conv1.0`, `model.3`.

    The sequence is the first convolution, the blocks, for every doubling an enlargement, a
    convolution and an activation, then a convolution, an activation and the last convolution.
    """

    name = "ESRGAN's names model.N"
    first = "model.1.sub.0.RDB1.conv1.0.weight"

    def _own_name(self, name: str, last: int, blocks: int) -> str:
        block = rf"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0{PARAMETER}"
        if match := re.fullmatch(block, name):
            return "body.{}.rdb{}.conv{}.{}".format(*match.groups())
        if match := re.fullmatch(rf"model\.1\.sub\.{blocks}{PARAMETER}", name):
            return f"conv_body.{match[1]}"
        match = re.fullmatch(rf"model\.(\d+){PARAMETER}", name)
        if match is None:
            return name
        position = int(match[1])
        heads = {0: "conv_first", last - 2: "conv_hr", last: "conv_last"}
        doubling = f"conv_up{position // 3}" if position % 3 == 0 else f"model.{position}"
        return f"{heads.get(position, doubling)}.{match[2]}"
