"""Types of the weights of a checkpoint."""

import pytest
import torch

from faigfast.zoo.weight_types import of_one_type


def test_types_that_torch_cannot_convert_are_named():
    state = {"weight": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}
    with pytest.raises(ValueError, match="weights are of float4_e2m1fn_x2; expected types"):
        of_one_type(state, None)
