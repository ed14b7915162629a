"""attribute(): two networks and images in, scores of filters out."""

from torch import nn

from faigfast.attribution.attributor import Devices, attribute_once
from faigfast.attribution.named_networks import named_networks, names_given, renamed_in_errors
from faigfast.filters.selection import Selection
from faigfast.integration.batch import FORMS, Batches
from faigfast.integration.objective import Objective
from faigfast.models.fused import Fuse
from faigfast.result import Attribution


def attribute(
    model_a: nn.Module | None = None,
    model_b: nn.Module | None = None,
    batch: Batches | None = None,
    *,
    baseline: nn.Module | None = None,
    target: nn.Module | None = None,
    rule: str = "averaged",
    steps: int | None = None,
    tol: float | None = None,
    tol_contrast: float | None = None,
    overlap: float | None = None,
    emulate: bool = False,
    objective: str | Objective = "squared_error",
    parameters: Selection | None = None,
    backend: str = "auto",
    precision: str = "auto",
    memory: int | None = None,
    progress: bool = False,
    per_image: bool = True,
    signed: bool = False,
    devices: Devices | None = None,
    pad: int = 0,
    fuse: Fuse | None = None,
) -> Attribution:
    """Attribute the removal of degradations to filters, by integrated gradients in weight space.

    On the line γ(α) = θ̄ + α(θ − θ̄) it computes, for every image x and its ground truth,
    I_i = Δ_i Σ_s w_s ∂L(γ(α_s), x)/∂γ_i and the score Σ |I_i| of every k×k kernel.

    Parameters
    ----------
    model_a, model_b : nn.Module
        Baseline θ̄ and target θ, of one architecture; called in eval mode, left as they are.
        `baseline=` and `target=` are other names of the two.
    batch : tuple, mapping or iterable
        `(x, gt)`; or `{"lq": x, "gt": gt}`; or several degradations of the same images,
        `{"lq": {"blur": xb, "noise": xn}, "gt": gt}` (gt may be such a mapping too); or an
        iterable of such batches, of any sizes. x is [N, C, *spatial], of the networks' dtype and
        device; gt [N, ...] is the ground truth of the output. A mapping may hold the N names of its
        images, for messages, as "name", and as "inputs" what the networks take beside x (a noise
        level, a map, a kernel), fixed along the line: a tuple by position after x, or a mapping by
        argument, of tensors [N, ...] with one row an image and of numbers; or one of these for each
        degradation. `pad` does not pad them.
    rule : str
        Quadrature rule; see `faigfast.integration.quadrature.quadrature`. The authors' is "left".
    steps : int, optional
        Number of nodes. Default: for "averaged" 15, or 6 for networks without kinks, and levels of
        up to 24 more for an image whose estimated error is above 1.25 times that of the authors'
        100 points; 20, for "graded" 16, "gauss-kronrod" 21, "left" and "right" the authors' 100;
        for images x of 64·64
        pixels or more 15 for "midpoint" and 14 for "graded" (docs/lab/accuracy.md compares them).
        With `tol` the most nodes of one rule, default 729.
    tol : float, optional
        Refine the rule ("averaged" is the most economical; "graded", "midpoint", "trapezoid",
        "left" and "right" nest), image by image, until the estimated relative L1 error of its
        scores is at most this. No point of a nested rule is evaluated twice; "averaged" takes all
        points anew, since their cells change.
    tol_contrast : float, optional
        Of the rule "averaged": take more points, for the images of a batch with the largest
        estimated errors, until the estimated relative L1 error that points leave in the contrast of
        every degradation (`Attribution.contrast_error`) is at most this, or an image would need
        more than `steps` points. A note says where it is still above.
    overlap : float, optional
        The same until the estimated share of the best 1 % of filters that stay best without the
        points' errors (`Attribution.stability`) is at least this, such as 0.99.
    emulate : bool
        Predict the sum of the left or right rule of `steps` nodes from 17 evaluations.
    objective : str or callable
        "squared_error" (summed over an image), "absolute_error", "charbonnier", "gradient",
        "laplacian" or "ssim" (see `faigfast.integration.image_losses`), or a function
        `(output, gt) -> [B]` with one loss a sample.
    parameters : str, iterable of str or callable, optional
        The weights to score: names or glob patterns of convolution weights, or a predicate on
        (name, tensor). All other tensors still move along the line. None: all convolution weights.
    backend : str
        "auto", or a name in `faigfast.backends()`.
    precision : str
        "fp64", "fp32", "bf16", "fp16", or "auto": the networks' own; on a GPU, of networks in
        float32, the fastest whose error, measured on a crop, is below the rule's own. With the
        backend "triton" also "tf32" and "bf16x3", float32 multiplied by matrix instructions:
        rounded to 10 bits, or as three products of bfloat16. With the backend "cpu", "bf16" rounds
        the factors in gradients of convolutions alone, and is fast where the processor has AMX.
    memory : int, optional
        Budget in bytes for activations, gradients and their sums; None: a quarter of the device's
        memory, or four fifths of the free memory if that is less. Scores do not depend on it beyond
        rounding. The reference backend and networks that run point by point ignore it: they hold
        one image at one point of the line, the least possible.
    progress : bool
        Show a progress bar in points·images with rate and time left.
    per_image : bool
        Keep the scores of every image. False keeps only their mean, so that memory does not
        grow with the number of batches.
    signed : bool
        Score a kernel by −Σ I_i, its part in the decrease of the loss, not by Σ |I_i|: a rival
        of FAIG, in which opposite effects of a kernel's weights cancel.
    devices : "all" or sequence of str or torch.device, optional
        Spread the images over several devices of this machine, such as ["cuda:0", "cuda:1"], with
        copies of the networks and a process for each; "all" means every GPU. A script then needs
        `if __name__ == "__main__":` around its work. None: the device of the networks.
    pad : int
        Pad x by reflection by so many pixels on every side, and compare the middle of the output
        with gt, as the published front ends of networks with valid convolutions do (waifu2x: 7,
        Real-CUGAN ×2: 18). x and gt stay as without padding.
    fuse : callable, optional
        Applied to a copy of each network, in eval mode, before anything else; returns the network,
        or None if it changes the copy in place. It merges the branches of networks such as RepVGG
        and SPAN, which otherwise merge them in every forward: the filters are those of its result.

    Returns
    -------
    Attribution

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument's value is out of range, the networks differ in more than their values or
        not at all, or the images do not fit; models and random generators are as before.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021. The absolute value is taken for each image, after the sum
    over the line. Calls from several threads wait for each other; nothing else may use the networks
    meanwhile. Random generators are left as they were, except while other threads run, whose draws
    a rewound generator would repeat.

    Examples
    --------
    >>> import torch
    >>> a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    >>> result = attribute(a, b, (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)))
    >>> result.scores().shape
    torch.Size([2, 9])
    """
    networks = named_networks(model_a, model_b, baseline, target)
    if batch is None:
        raise TypeError(f"batch is a NoneType; expected {FORMS}")
    with renamed_in_errors(names_given(model_a, model_b, baseline, target)):
        return attribute_once(
            *networks, batch, rule=rule, steps=steps, tol=tol, tol_contrast=tol_contrast,
            overlap=overlap, emulate=emulate, objective=objective, parameters=parameters,
            backend=backend, precision=precision, memory=memory, progress=progress,
            per_image=per_image, signed=signed, devices=devices, pad=pad, fuse=fuse,
        )  # fmt: skip
