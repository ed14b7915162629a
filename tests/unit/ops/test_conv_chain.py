"""Chains: path convolutions that follow each other, as one operation."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases.conv_chain_operations import (
    CHAINS,
    assert_near,
    assert_right,
    case,
    expected,
    link,
    one_by_one,
    operation_values,
    prepared,
    upstream,
    values,
)
from cases.path_operations import poisoned
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from faigfast.backend.cpu import extension as _extension
from faigfast.ops.conv import chain as ops
from faigfast.ops.conv import channel_buffer, cpu_queue
from faigfast.ops.conv.chain import Concatenation, ConvParameters, run, serves
from faigfast.ops.registry import Use, using

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory of the kernels is full of NaN where nothing was written."""
    for module in (cpu_queue, channel_buffer):
        monkeypatch.setattr(module, "empty", _poisoned)
    with poisoned(), using(Use("cpu")):
        yield


def _poisoned(*shape, empty=cpu_queue.empty):
    return empty(*shape).fill_(torch.nan)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("size", [(1, 1), (6, 1), (1, 4), (7, 5)], ids=str)
def test_values_and_gradients(name, size):
    assert_right(case(name, size=size))


@pytest.mark.parametrize("name", CHAINS)
def test_forward_is_that_of_the_links_to_the_bit(name):
    given = case(name, points=3, samples=2, size=(9, 6))
    together, apart = operation_values(given), operation_values(given, one_by_one)
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
    together, apart = operation_values(given), operation_values(given, one_by_one)
    assert not together[0].isfinite().all()
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one.isfinite(), other.isfinite())


def test_two_calls_give_the_same_in_several_threads_too():
    given = case("dense, seen", size=(17, 13))

    def call(_):
        with using(Use("cpu")):
            return operation_values(given)

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
    monkeypatch.setattr(ops, "ChannelBuffer", kept(ops.ChannelBuffer))

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
            links.append(Concatenation((last, len(links)), 8))
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
    plain = operation_values(given)
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
    wide = ConvParameters(torch.zeros(5, 4, 1, 1), None, None, None, None, None)
    assert not serves(inputs, [*layers, wide])


def test_without_the_extension_it_does_not_serve(monkeypatch):
    (_, inputs, layers, *_), _ = prepared(case("two"))
    monkeypatch.setattr(_extension, "module", None)
    assert not serves(inputs, layers)
