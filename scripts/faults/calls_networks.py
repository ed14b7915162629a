"""Malformed and unusual networks."""

import copy
import math
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import networks as own
import torch
from call import Call, Mutation, draw_images, pair, smooth
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrizations

WORDS = r"model_[ab]|network|baseline|target|tensor|\bx\b|layer|weight|gradient|loss|'[\w.]+'"
Networks = tuple[Any, Any]


def _made(name: str, make: Callable[[], nn.Module], **options: Any) -> Mutation:
    """Take networks of another kind, on images of 2 channels."""

    def change(call: Call, random: Random) -> None:
        call.baseline, call.target = pair(make, call.dtype, random)

    return Mutation(f"network {name}", change, WORDS, **options)


def _changed(
    name: str, change_pair: Callable[[Any, Any], Networks | None], **options: Any
) -> Mutation:
    """Change the two networks of the call in place, or give others in their place."""

    def change(call: Call, random: Random) -> None:
        given = change_pair(call.baseline, call.target)
        if given is not None:
            call.networks = call.networks or (call.baseline, call.target)
            call.baseline, call.target = given

    return Mutation(f"networks {name}", change, WORDS, **options)


def _on_images(name: str, make: Callable[[], nn.Module], *shape: int) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.baseline, call.target = pair(make, call.dtype, random)
        x = draw_images(random, call.dtype, shape)[0]
        with torch.no_grad():
            call.mean(x, torch.rand_like(copy.deepcopy(call.target)(x)))

    return Mutation(f"network {name}", change, WORDS)


def _norms() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.Dropout(0.5), nn.Conv2d(4, 2, 1))  # fmt: skip


def _normalised(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(wrap(nn.Conv2d(2, 3, 3, padding=1)), nn.Tanh(), nn.Conv2d(3, 2, 1))


def _tied() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 2, 3, padding=1))
    network[2].weight = network[0].weight
    return network


def _one_layer_twice() -> nn.Module:
    layer = nn.Conv2d(2, 2, 3, padding=1)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Conv2d(2, 2, 1))


def _views(*networks: nn.Module) -> None:
    """Make every parameter a view of one flat tensor."""
    for network in networks:
        parameters = list(network.named_parameters())
        flat = torch.cat([p.detach().flatten() for _, p in parameters])
        parts = flat.split([p.numel() for _, p in parameters])
        for (name, p), part in zip(parameters, parts, strict=True):
            place, _, key = name.rpartition(".")
            setattr(network.get_submodule(place), key, nn.Parameter(part.view(p.shape)))


def _on_each(change: Callable[[nn.Module], Any]) -> Callable[[Any, Any], None]:
    def change_both(baseline: Any, target: Any) -> None:
        change(baseline)
        change(target)

    return change_both


def _instead(change: Callable[[Any], Any]) -> Callable[[Any, Any], Networks]:
    return lambda baseline, target: (change(baseline), change(target))


def _of_one(position: int, change: Callable[[Any], Any]) -> Callable[[Any, Any], Networks]:
    def change_one(*networks: Any) -> Networks:
        given = list(networks)
        given[position] = change(given[position])
        return given[0], given[1]

    return change_one


def _fake(network: nn.Module) -> nn.Module:
    with FakeTensorMode():
        return smooth()


def _with_parameter(value: Any, **options: Any) -> Callable[[nn.Module], None]:
    return lambda network: network.register_parameter("own", nn.Parameter(value, **options))


def _with_buffer(make: Callable[[], Tensor]) -> Callable[[nn.Module], None]:
    return lambda network: network.register_buffer("own", make())


def _scaling_hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    return 0.5 * output


def _doubling_gradient(module: nn.Module, given: Any, gradients: Any) -> Any:
    return tuple(None if g is None else 2 * g for g in given)


def _with_gradients(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)


def _inference(network: nn.Module) -> nn.Module:
    with torch.inference_mode():
        return copy.deepcopy(network)


def _locked(call: Call, random: Random) -> None:
    call.networks = copy.deepcopy(call.baseline), copy.deepcopy(call.target)
    call.target.lock = threading.Lock()  # cannot be copied


def _compiled(network: nn.Module) -> Any:
    return torch.compile(network, backend="eager")


def _scripted(network: nn.Module) -> Any:
    return torch.jit.trace(network, torch.rand(1, 2, 6, 5, dtype=own.dtype_of(network)))


def _nudged(baseline: nn.Module, target: nn.Module) -> None:
    """Let the networks differ in the last bits alone."""
    target.load_state_dict({k: v * (1 + 1e-7) for k, v in baseline.state_dict().items()})


def _bias_alone(baseline: nn.Module, target: nn.Module) -> None:
    state = baseline.state_dict() | {"0.bias": target.state_dict()["0.bias"]}
    target.load_state_dict(state)


def _other_activation(network: nn.Module) -> nn.Module:
    changed = copy.deepcopy(network)
    changed[1] = nn.Sigmoid()
    return changed


def _swapped_layers(call: Call, random: Random) -> None:
    call.baseline, call.target = call.target, call.baseline


def _tuple_with_objective(call: Call, random: Random) -> None:
    call.baseline, call.target = pair(own.Tuple, call.dtype, random)
    call.loss = own.loss_of_first
    call.options["objective"] = own.loss_of_first


MADE = [
    _made("with batch norm and dropout", _norms),
    _made("with weight norm", lambda: _normalised(parametrizations.weight_norm)),
    _made("with old weight norm", lambda: _normalised(torch.nn.utils.weight_norm)),
    _made("with spectral norm", lambda: _normalised(parametrizations.spectral_norm)),
    _made("with tied weights", _tied),
    _made("that uses a layer twice", _one_layer_twice),
    _made("without convolution", lambda: nn.Linear(5, 5), refused=True),
    _made("without parameters", nn.ReLU, refused=True),
    *(_made(name, make) for name, make in own.UNUSUAL.items()),
    *(_made(name, make, refused=True, alone=True) for name, make in own.REFUSED.items()),
    *(
        _made(f"raising {kind.__name__}", lambda kind=kind: own.Raising(kind), refused=True)
        for kind in own.RAISED
    ),
    _on_images("of 1-D convolutions", lambda: nn.Conv1d(2, 3, 3), 2, 2, 9),
    _on_images("of 3-D convolutions", lambda: nn.Conv3d(1, 2, 2), 1, 1, 4, 3, 3),
    _on_images("of transposed convolutions", lambda: nn.ConvTranspose2d(2, 3, 2, 2), 2, 2, 4, 3),
    _on_images("of grouped, dilated convolutions",
               lambda: nn.Conv2d(4, 4, 3, groups=2, dilation=2, padding=2), 2, 4, 7, 6),
    _on_images("of padding modes", lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
               2, 2, 6, 5),
    _on_images("with pixel shuffle", lambda: nn.Sequential(nn.Conv2d(2, 8, 3, padding=1),
                                                           nn.PixelShuffle(2)), 2, 2, 5, 4),
]  # fmt: skip

CHANGED = [
    _changed("in train mode", _on_each(lambda net: net.train())),
    _changed("with one layer in train mode", _on_each(lambda net: net[0].train())),
    _changed("frozen", _on_each(lambda net: net.requires_grad_(False))),
    _changed("half frozen", _on_each(lambda net: net[0].requires_grad_(False))),
    _changed("with gradients", _on_each(_with_gradients)),
    _changed("whose parameters are views", _views),
    _changed("with an integer parameter",
             _on_each(_with_parameter(torch.arange(3), requires_grad=False))),
    _changed("with an empty parameter", _on_each(_with_parameter(torch.zeros(0)))),
    _changed("with a scalar parameter", _on_each(_with_parameter(torch.tensor(1.0)))),
    _changed("with a complex parameter",
             _on_each(_with_parameter(torch.zeros(2, dtype=torch.complex64))), refused=True),
    _changed("with a half-precision parameter", _on_each(_with_parameter(torch.zeros(2).half()))),
    _changed("with a sparse buffer", _on_each(_with_buffer(lambda: torch.eye(3).to_sparse()))),
    _changed("with a nested buffer", _on_each(_with_buffer(
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])))),
    _changed("with a quantised buffer", _on_each(_with_buffer(
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)))),
    _changed("with a meta buffer",
             _on_each(_with_buffer(lambda: torch.zeros(3, device="meta"))), refused=True),
    _changed("with a bool buffer", _on_each(_with_buffer(lambda: torch.ones(3).bool()))),
    _changed("with a NaN buffer", _on_each(_with_buffer(lambda: torch.tensor(math.nan)))),
    _changed("in channels last", _on_each(lambda net: net.to(memory_format=torch.channels_last))),
    _changed("with a forward hook",
             _on_each(lambda net: net[0].register_forward_hook(_scaling_hook))),
    _changed("with a pre-hook", _on_each(
        lambda net: net[0].register_forward_pre_hook(lambda module, given: (2 * given[0],)))),
    _changed("with a backward hook",
             _on_each(lambda net: net[1].register_full_backward_hook(_doubling_gradient))),
    _changed("with a hook that raises", _on_each(
        lambda net: net[0].register_forward_hook(lambda *given: {}["missing"])), refused=True),
    _changed("of inference mode", _instead(_inference)),
    _changed("in DataParallel", _instead(nn.DataParallel)),
    _changed("in torch.compile", _instead(_compiled)),
    _changed("in DataParallel twice", _instead(lambda net: nn.DataParallel(nn.DataParallel(net)))),
    _changed("scripted", _instead(_scripted), refused=True),
    _changed("fake", _instead(_fake), refused=True, alone=True),
    _changed("complex", _instead(lambda net: net.to(torch.complex64)), refused=True, alone=True),
    _changed("on meta", _instead(lambda net: net.to("meta")), refused=True, alone=True),
    _changed("in half precision", _instead(lambda net: copy.deepcopy(net).half()), refused=True),
    _changed("of one object", lambda a, b: (b, b), refused=True),
    _changed("of equal weights", lambda a, b: (copy.deepcopy(b), b), refused=True),
    _changed("that differ by a bit", _nudged),
    _changed("that differ in a bias", _bias_alone),
    _changed("of two activations", _of_one(0, _other_activation), refused=True, alone=True),
    Mutation("network that cannot be copied", _locked, WORDS, alone=True),
    Mutation("networks exchanged", _swapped_layers, WORDS),
    Mutation("network that returns a tuple, with its objective", _tuple_with_objective, WORDS,
             alone=True),
]  # fmt: skip

NO_NETWORKS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "path": lambda: "baseline.pth",
    "class": lambda: nn.Conv2d,
    "function": lambda: torch.relu,
    "state dict": lambda: smooth().state_dict(),
    "list": lambda: [smooth()],
    "tensor": lambda: torch.zeros(2, 2, 3, 3),
    "lazy": lambda: nn.LazyConv2d(2, 1),
    "loss": nn.MSELoss,
    "other widths": lambda: nn.Sequential(nn.Conv2d(2, 9, 3), nn.Tanh(), nn.Conv2d(9, 2, 3)),
    "more layers": lambda: nn.Sequential(*smooth(), nn.Conv2d(2, 2, 1)),
    "module without init": lambda: nn.Module.__new__(nn.Module),
}
NUMBERS = [math.nan, math.inf, -math.inf]


def _in_role(position: int, role: str) -> list[Mutation]:
    """Give what is no network, and networks of values that are not finite, in one role."""

    def setting(number: float) -> Callable[[nn.Module], nn.Module]:
        def change(network: nn.Module) -> nn.Module:
            network.state_dict()["0.weight"].view(-1)[1] = number
            return network

        return change

    def other(make: Callable[[], Any]) -> Callable[[Any], Any]:
        return lambda network: make()

    changes = {f"with {name}": other(make) for name, make in NO_NETWORKS.items()}
    changes |= {f"with {number}": setting(number) for number in NUMBERS}
    return [
        _changed(f"{name} as {role}", _of_one(position, change), refused=True, alone=True)
        for name, change in changes.items()
    ]


MUTATIONS = [*MADE, *CHANGED, *_in_role(0, "baseline"), *_in_role(1, "target")]
