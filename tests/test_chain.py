"""Chains: path convolutions that follow each other, as one operation."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from path_cases import Numbers, laid_out, poisoned, with_sums
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from faigfast import _extension
from faigfast.ops import chain as ops
from faigfast.ops import cpu_queue, joining
from faigfast.ops.chain import Chain, Joint, Layer, Link, run, serves
from faigfast.ops.conv import conv
from faigfast.ops.table import Use, using

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
BOUND = 1e-5  # relative L2 of every value and gradient; 1e-6 is what was seen
NOTHING = (None, None, None)
GEOMETRY = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
ACTIVATIONS = {"none": lambda z, _: z, "relu": lambda z, _: F.relu(z), "leaky_relu": F.leaky_relu}


def link(x, channels, residual=None, activation="none", slope=0.0, scale=1.0, shuffle=1):
    """A convolution of value x to so many channels."""
    return channels, partial(
        Link, x, residual, activation=activation, slope=slope, scale=scale, shuffle=shuffle
    )


def made(widths, links, outputs):
    """A chain of inputs with so many channels, and the channels of its layers."""
    widths, layers, steps = list(widths), [], []
    inputs = len(widths)
    for step in links:
        if isinstance(step, Joint):
            widths.append(sum(widths[part] for part in step.takes))
        else:
            channels, make = step
            step = make(layer=len(layers))
            layers.append((widths[step.x], channels))
            widths.append(channels // step.shuffle**2)
        steps.append(step)
    return Chain(inputs, tuple(steps), outputs), layers


LEAKY = dict(activation="leaky_relu", slope=0.1)
DENSE = [
    link(0, 3, **LEAKY), Joint((0, 1), 12), link(2, 3, **LEAKY), Joint((2, 3), 12),
    link(4, 5, **LEAKY), Joint((4, 5), 12), link(6, 4, residual=0, scale=0.2),
]  # fmt: skip
CHAINS = {  # inputs' channels, links, outputs
    "two": ([3], [link(0, 5, activation="relu"), link(1, 4)], [2]),
    "three": ([3], [link(0, 17), link(1, 5, **LEAKY), link(2, 20, activation="relu")], [3]),
    "block": ([4], [link(0, 6, activation="relu"), link(1, 4, residual=0, scale=0.5)], [2]),
    "x is the residual": ([4], [link(0, 4), link(1, 4, residual=1, scale=-2.0)], [2]),
    "x and residual are an input": ([4], [link(0, 4, residual=0), link(1, 4)], [2]),
    "an input is residual": ([3, 4], [link(0, 5), link(2, 4, residual=1)], [3]),
    "an input is used twice": ([4], [link(0, 4), link(0, 4, residual=1), link(2, 4, 0)], [3]),
    "a value is used four times": (
        [3], [link(0, 4, activation="relu"), link(1, 4), link(1, 4, 1), link(3, 4, 2)], [4],
    ),
    "all are outputs": (
        [4], [link(0, 4, activation="relu"), link(1, 4), link(2, 4, residual=1)], [1, 2, 3],
    ),
    "not in order": ([4], [link(0, 4, activation="relu"), link(1, 4, residual=0)], [2, 1]),
    "side by side": ([3, 3], [link(0, 4, **LEAKY), link(1, 5, **LEAKY), link(2, 6)], [3, 4]),
    "a dead end": ([3], [link(0, 4), link(1, 4, **LEAKY), link(1, 4, **LEAKY)], [3]),
    "shuffled": (
        [3], [link(0, 16, shuffle=2, activation="relu"), link(1, 18, shuffle=3), link(2, 3)], [3],
    ),
    "dense": ([4], DENSE, [7]),
    "dense, seen": ([4], DENSE, [3, 4, 6, 7]),
    "joined twice": (
        [4],
        [
            link(0, 3), Joint((0, 1), 12), link(2, 3), link(2, 5, **LEAKY),
            Joint((2, 3), 10), Joint((2, 4), 12), link(5, 4), link(6, 4, residual=7),
        ],
        [8],
    ),
    "joined to itself": (
        [3], [link(0, 2), Joint((1, 1), 8), Joint((2, 2), 8), link(3, 4), link(2, 4)], [4, 5],
    ),
    "joined from outside": (
        [2, 3], [Joint((0, 1), 11), link(2, 4), Joint((2, 3, 0), 11), link(4, 3)], [5],
    ),
    "joined is residual": ([3], [link(0, 2), Joint((0, 1), 9), link(2, 5, residual=2)], [3]),
    "one channel": (
        [1], [link(0, 1), Joint((0, 1), 3), link(2, 1), Joint((2, 3), 3), link(4, 1)], [5],
    ),
    "joined alone": (
        [4], [link(0, 4), link(1, 4), link(2, 4), Joint((0,), 4), link(4, 4, residual=3)], [5],
    ),
    "joined, then narrower": (
        [4], [link(0, 3), Joint((0, 1), 12), link(2, 5), link(3, 7), link(4, 4)], [5],
    ),
    "no room": ([3], [link(0, 2), Joint((0, 1), 5), Joint((2, 1), 5), link(3, 3)], [4]),
}  # fmt: skip


def case(name, points=2, images=2, samples=1, size=(7, 5), shared=(), layout="contiguous",
         weights="moves", biases="moves"):  # fmt: skip
    """A chain, its inputs [P, M, C, H, W], (w0, Δ) and (b0, Δ) of its layers, α and N, in float64.

    `shared` are the inputs that all points share; `weights` and `biases` are a kind of
    `Numbers.on_line` for all layers, or some for layers in turn.
    """
    widths, links, outputs = CHAINS[name]
    chain, channels = made(widths, links, tuple(outputs))
    numbers = Numbers(integers=False, seed=0)
    inputs = [
        laid_out(numbers(1 if i in shared else points, images, samples, width, *size), layout)
        for i, width in enumerate(widths)
    ]
    layers = [
        (
            numbers.on_line(o, c, 3, 3, kind=_of(weights, i), gain=(9 * c) ** -0.5),
            numbers.on_line(o, kind=_of(biases, i), gain=0.2),
        )
        for i, (c, o) in enumerate(channels)
    ]
    return chain, [x.flatten(1, 2) for x in inputs], layers, numbers.alpha(points), images


def _of(kinds, i):
    return kinds[i % len(kinds)] if isinstance(kinds, list) else kinds


def upstream(outputs, without=()):
    """A gradient for every output but some."""
    generator = torch.Generator().manual_seed(99)
    random = partial(torch.randn, generator=generator, dtype=torch.float64)
    return [None if i in without else random(y.shape).to(y) for i, y in enumerate(outputs)]


def values(outputs, leaves, without=()):
    """Outputs, and the gradients of leaves, by one backward."""
    gys = upstream(outputs, without)
    pairs = [
        (y, gy) for y, gy in zip(outputs, gys, strict=True) if gy is not None and y.requires_grad
    ]
    torch.autograd.backward(*zip(*pairs, strict=True))
    return [*(y.detach() for y in outputs), *(leaf.grad for leaf in leaves)]


def prepared(given, still=()):
    """Arguments of the operation in float32, and what gets gradients: inputs but some, layers."""
    chain, inputs, layers, alpha, images = given
    inputs = [x.float().detach().requires_grad_(i not in still) for i, x in enumerate(inputs)]
    lines = [
        [NOTHING if part is None else with_sums(_float(part), images) for part in layer]
        for layer in layers
    ]
    sums = [part[2] for layer in lines for part in layer if part[2] is not None]
    leaves = [x for x in inputs if x.requires_grad] + sums
    return (chain, inputs, [Layer(*w, *b) for w, b in lines], alpha.float(), images), leaves


def found(given, run=run, still=(), without=()):
    """By the operation: outputs, gradients of inputs but some, and of layers."""
    arguments, leaves = prepared(given, still)
    return values(run(*arguments), leaves, without)


def _float(part):
    return tuple(None if t is None else t.float() for t in part)


def one_by_one(chain, inputs, layers, alpha, images):
    """The same by an operation for every link."""
    known = list(inputs)
    for step in chain.links:
        if isinstance(step, Joint):
            points = max(len(known[part]) for part in step.takes)
            parts = [known[part] for part in step.takes]
            known.append(torch.cat([p.expand(points, *p.shape[1:]) for p in parts], 2))
            continue
        own = layers[step.layer]
        y, _ = conv(
            known[step.x], own.w0, own.dw, own.b0, own.db, None, None, alpha, own.sum_w,
            own.sum_b, None, None if step.residual is None else known[step.residual],
            *GEOMETRY, step.activation, step.slope, step.scale, step.shuffle,
        )  # fmt: skip
        known.append(y)
    return [known[place] for place in chain.outputs]


def expected(given, still=(), without=()):
    """By plain PyTorch in float64, one image at one point after the other."""
    chain, inputs, layers, alpha, images = given
    inputs = [x.detach().clone().requires_grad_(i not in still) for i, x in enumerate(inputs)]
    # Added to the parameters of every image: their gradients are those of the sums.
    sums = [
        [None if part is None or part[1] is None else
         part[0].new_zeros(images, *part[0].shape).requires_grad_() for part in layer]
        for layer in layers
    ]  # fmt: skip
    rows = []
    for p, a in enumerate(alpha):
        for n in range(images):
            known = [x[p % len(x)].chunk(images)[n] for x in inputs]
            for step in chain.links:
                if isinstance(step, Joint):
                    known.append(torch.cat([known[part] for part in step.takes], 1))
                    continue
                w, b = (
                    None if part is None else part[0] if part[1] is None
                    else part[0] + a * part[1] + own[n]
                    for part, own in zip(layers[step.layer], sums[step.layer], strict=True)
                )  # fmt: skip
                z = F.conv2d(known[step.x], w, b, padding=1)
                z = F.pixel_shuffle(ACTIVATIONS[step.activation](z, step.slope), step.shuffle)
                rest = 0 if step.residual is None else known[step.residual]
                known.append(step.scale * z + rest)
            rows.append([known[place] for place in chain.outputs])
    outputs = [
        torch.cat(column).unflatten(0, (len(alpha), -1)) for column in zip(*rows, strict=True)
    ]
    flat = [own for layer in sums for own in layer if own is not None]
    return values(outputs, [x for x in inputs if x.requires_grad] + flat, without)


def assert_near(result, reference, bound=BOUND):
    for i, (one, other) in enumerate(zip(result, reference, strict=True)):
        assert (one is None) == (other is None), i
        if other is not None:
            assert one.shape == other.shape, i
            # A NaN is not below the bound.
            assert (one.double() - other.double()).norm() <= bound * other.norm(), i


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory of the kernels is full of NaN where nothing was written."""
    for module in (cpu_queue, joining):
        monkeypatch.setattr(module, "empty", _poisoned)
    with poisoned(), using(Use("cpu")):
        yield


def _poisoned(*shape, empty=cpu_queue.empty):
    return empty(*shape).fill_(torch.nan)


def assert_right(given, **options):
    assert_near(found(given, **options), expected(given, **options))


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("size", [(1, 1), (6, 1), (1, 4), (7, 5)], ids=str)
def test_values_and_gradients(name, size):
    assert_right(case(name, size=size))


@pytest.mark.parametrize("name", CHAINS)
def test_forward_is_that_of_the_links_to_the_bit(name):
    given = case(name, points=3, samples=2, size=(9, 6))
    together, apart = found(given), found(given, one_by_one)
    seen = len(given[0].outputs)
    assert_near(together[:seen], apart[:seen], 0)
    assert_near(together[seen:], apart[seen:], 2e-6)


@pytest.mark.parametrize("name", CHAINS)
def test_nobody_reads_what_was_left_to_the_queue(name, monkeypatch):
    def spoil(queue, part):
        queue.run()
        part.fill_(torch.nan)

    monkeypatch.setattr(cpu_queue.Queue, "free", spoil)
    assert_right(case(name, size=(9, 6)))
    arguments, _ = prepared(case(name, size=(9, 6)))
    with torch.no_grad():
        assert_near(run(*arguments), one_by_one(*arguments), 0)


VARIED = {
    "one point of one image": dict(points=1, images=1),
    "many points": dict(points=9, images=1),
    "many images": dict(points=1, images=5),
    "samples": dict(points=2, images=2, samples=3),
    "one input is shared": dict(points=3, shared=[0]),
    "all inputs are shared": dict(points=3, shared=[0, 1]),
    "channels last": dict(layout="channels last"),
    "strided": dict(layout="strided"),
    "images alike": dict(layout="images alike"),
    "no bias": dict(biases=None),
    "some biases": dict(biases=["moves", None, "still"]),
    "biases stand still": dict(biases="still"),
    "weights stand still": dict(weights="still"),
    "some layers stand still": dict(weights=["still", "moves"], biases=["still", "moves"]),
    "the first moves": dict(weights=["moves"] + ["still"] * 9, biases=None),
}
VARIOUS = ["three", "block", "an input is used twice", "all are outputs", "dense",
           "joined from outside"]  # fmt: skip


@pytest.mark.parametrize("varied", VARIED)
@pytest.mark.parametrize("name", VARIOUS)
def test_cases(name, varied):
    assert_right(case(name, **VARIED[varied]))


@pytest.mark.parametrize("name", VARIOUS)
def test_a_gradient_only_where_one_is_wanted(name):
    given = case(name, weights=["still", "moves"], biases=["still", "moves"])
    assert_right(given, still=range(2))


def test_nothing_moves():
    arguments, leaves = prepared(case("dense, seen", weights="still", biases="still"), range(2))
    assert not leaves
    outputs = run(*arguments)
    assert not any(y.requires_grad for y in outputs)
    assert_near(outputs, one_by_one(*arguments), 0)


@pytest.mark.parametrize("without", [[0], [1], [2], [0, 2], [1, 2]], ids=str)
@pytest.mark.parametrize("name", ["all are outputs", "dense, seen"])
def test_outputs_without_a_gradient(name, without):
    assert_right(case(name), without=without)


def test_points_and_images_that_share_one_gradient():
    results = []
    for alike in (True, False):
        arguments, leaves = prepared(case("all are outputs", points=3))
        outputs = run(*arguments)
        gys = [gy[:1, :1].expand(gy.shape) for gy in upstream(outputs)]
        torch.autograd.backward(outputs, gys if alike else [gy.contiguous() for gy in gys])
        results.append([leaf.grad for leaf in leaves])
    assert_near(*results, 0)


def test_inputs_may_be_some_channels_of_others():
    arguments, leaves = prepared(case("joined from outside"))
    chain, (one, other), *rest = arguments
    both = torch.cat((other, one), 2).movedim(2, -1).contiguous().movedim(-1, 2)
    result = values(run(chain, (both[:, :, 3:], both[:, :, :3]), *rest), leaves)
    assert_near(result, expected(case("joined from outside")))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_infinities_and_nan_come_out_where_they_do_link_by_link(value):
    given = case("dense", size=(9, 8))
    given[1][0][0, 1, 2, 6, 6] = value
    together, apart = found(given), found(given, one_by_one)
    assert not together[0].isfinite().all()
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one.isfinite(), other.isfinite())


def test_two_calls_give_the_same_in_several_threads_too():
    given = case("dense, seen", size=(17, 13))

    def call(_):
        with using(Use("cpu")):
            return found(given)

    once, *others = [call(None), call(None)]
    with ThreadPoolExecutor(2) as threads:
        others += threads.map(call, range(6))
    for other in others:
        assert_near(other, once, 0 if torch.get_num_threads() == 1 else 1e-6)


@pytest.fixture
def alive(monkeypatch):
    """How many values of links, and rooms for joins, lived at every link."""
    made, counts = {}, []

    def kept(make):
        def run(*args):
            counts.append(now())
            value = make(*args)
            made[id(value)] = weakref.ref(value)  # the memory of one may be another's later
            return value

        return run

    monkeypatch.setattr(cpu_queue.Queue, "convolve", kept(cpu_queue.Queue.convolve))
    monkeypatch.setattr(ops, "Room", kept(ops.Room))

    def now():
        return sum(ref() is not None for ref in made.values())

    now.counts = counts
    return now


def long_chain(joins):
    """Blocks one after the other, each of which takes the memory of the one before, or not."""
    links, last = [], 0
    for _ in range(10):
        links.append(link(last, 4, activation="relu"))
        if joins:
            links.append(Joint((last, len(links)), 8))
            links.append(link(len(links), 4))
        last = len(links)
    return links


@pytest.mark.parametrize("joins", [False, True])
def test_without_gradients_nothing_is_kept(joins, alive, monkeypatch):
    links = long_chain(joins)
    monkeypatch.setitem(CHAINS, "long", ([4], links, [len(links)]))
    arguments, _ = prepared(case("long"))
    with torch.no_grad():
        y = run(*arguments)
    assert len(alive.counts) >= 10 and max(alive.counts) <= 3
    assert alive() == 1 and not y[0].requires_grad


def test_gradients_take_the_memory_of_those_before(monkeypatch):
    links = []
    for last in range(0, 20, 2):
        links += [link(last, 4, activation="relu"), link(last + 1, 4, residual=last)]
    monkeypatch.setitem(CHAINS, "blocks", ([4], links, [20]))
    arguments, leaves = prepared(case("blocks", size=(9, 8)))
    outputs, made = run(*arguments), []
    monkeypatch.setattr(cpu_queue, "empty", lambda *shape: made.append(shape) or _poisoned(*shape))
    torch.autograd.backward(outputs, upstream(outputs))
    assert all(leaf.grad is not None for leaf in leaves)
    assert 2 <= sum(shape[2:4] == (9, 8) for shape in made) <= 3


def test_what_backward_does_not_need_is_not_kept(alive):
    arguments, _ = prepared(case("dense"))
    arguments[1][0].requires_grad_(False)
    outputs = run(*arguments)
    # Results of the leaky layers, whose signs are needed, and the output itself; no room but its
    # memory.
    assert alive() == 4
    del outputs
    assert alive() == 0


def test_a_residual_is_not_kept(alive, monkeypatch):
    links = [link(0, 4), link(0, 4, residual=1), link(0, 4, residual=2)]
    monkeypatch.setitem(CHAINS, "sums", ([4], links, [3]))
    arguments, _ = prepared(case("sums"))
    outputs = run(*arguments)
    assert alive() == len(outputs)


def test_values_are_made_again_in_a_checkpoint(alive):
    given = case("dense, seen")
    plain = found(given)
    arguments, leaves = prepared(given)
    chain, inputs, *rest = arguments
    alive.counts.clear()
    outputs = checkpoint(lambda *inputs: run(chain, inputs, *rest), *inputs, use_reentrant=False)
    once = len(alive.counts)
    assert alive() == 2  # convolutions' results that are outputs
    assert_near(values(outputs, leaves), plain, 1e-6)
    assert len(alive.counts) == 2 * once
    del outputs
    assert alive() == 0


def test_where_it_serves():
    (_, inputs, layers, *_), _ = prepared(case("dense"))
    assert serves(inputs, layers)
    for backend in ("", "triton"):
        with using(Use(backend)):
            assert not serves(inputs, layers)
    with using(Use("cpu", values=torch.bfloat16)):
        assert not serves(inputs, layers)
    assert not serves([x.double() for x in inputs], layers)
    assert not serves([x[..., :0] for x in inputs], layers)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert not serves(inputs, layers)
    wide = Layer(torch.zeros(5, 4, 1, 1), None, None, None, None, None)
    assert not serves(inputs, [*layers, wide])


def test_without_the_extension_it_does_not_serve(monkeypatch):
    (_, inputs, layers, *_), _ = prepared(case("two"))
    monkeypatch.setattr(_extension, "module", None)
    assert not serves(inputs, layers)
