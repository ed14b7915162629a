"""Recipes: their grammar, the order of steps, seeds, functions, and identities."""

from functools import partial

import pytest
import torch

from faigfast.cli.attribute import named_recipes
from faigfast.cli.common_options import RECIPES
from faigfast.data import Degradation
from faigfast.data.degradations import (
    Anisotropic,
    Blur,
    Defocus,
    Down,
    GrayNoise,
    Jpeg,
    Motion,
    Noise,
    Poisson,
    RealESRGAN,
    Resize,
    SaltAndPepper,
    Sinc,
    Speckle,
    Webp,
    add_noise,
    downsample,
    gaussian_blur,
    round_to_8_bit,
)
from faigfast.data.degradations.codecs import jpeg
from faigfast.data.degradations.grammar import STEPS, split_named
from faigfast.data.degradations.recipe import _hashed


def photograph(height=24, width=32, seed=0, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, channels, height, width, generator=generator)


def generator_of(seed, position, name, use=1):
    return torch.Generator().manual_seed(_hashed(seed, position, name, use))


# --- the grammar


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("jpeg=40", (Jpeg(40),)),
        ("webp=0", (Webp(0),)),
        ("blur=2+noise=0.1+jpeg=40", (Blur(2), Noise(0.1), Jpeg(40))),
        ("anisotropic=2:0.8:30", (Anisotropic(2, 0.8, 30),)),
        ("anisotropic=2:0.8", (Anisotropic(2, 0.8, 0),)),
        (" motion = 7 : -45 + defocus=2.5 ", (Motion(7, -45), Defocus(2.5))),
        ("sinc=1.5:13+resize=2:area", (Sinc(1.5, 13), Resize(2, "area"))),
        ("gray-noise=0.1+poisson=1+speckle=.2", (GrayNoise(0.1), Poisson(1), Speckle(0.2))),
        ("salt-and-pepper=1e-2", (SaltAndPepper(0.01),)),
        ("realesrgan", (RealESRGAN(),)),
        ("jpeg=40+down+jpeg=40", (Jpeg(40), Down(), Jpeg(40))),
    ],
)
def test_recipes_that_are_read(text, steps):
    recipe = Degradation.parse(text, 3, "bicubic")
    assert recipe == Degradation(scale=3, downsampling="bicubic", steps=steps)
    assert Degradation.parse(recipe.text, 3, "bicubic") == recipe, "the text is the recipe"
    assert hash(recipe) == hash(Degradation.parse(text, 3, "bicubic")) and not recipe.clean


def test_recipes_of_blur_and_noise_alone_stay_the_papers():
    recipe = Degradation.parse("noise=0.1+blur=2")
    assert recipe == Degradation(blur=2, noise=0.1) and recipe.steps == ()
    assert recipe.text == "blur=2+noise=0.1"
    assert Degradation.parse("clean").text == "clean" and Degradation.parse("clean").clean
    assert Degradation.parse("down").clean


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "jpg=40",
            "no step is called 'jpg' .did you mean 'jpeg'..; expected 'clean' or steps of blur, ",
        ),
        ("blurr=2", "did you mean 'blur'"),
        ("gray_noise=1", "did you mean 'gray-noise'"),
        ("Salt_and_pepper=1", "did you mean 'salt-and-pepper'"),
        ("salt=1", "did you mean 'salt-and-pepper'"),
        ("real-esrgan", "did you mean 'realesrgan'"),
        ("cleen", "did you mean 'clean'"),
        ("xyz=1", "no step is called 'xyz'; expected"),
        ("clean+jpeg=4", "'clean' stands alone"),
        ("jpeg=40+", "no step is called '';"),
        ("jpeg", "has 'jpeg'; expected jpeg=QUALITY"),
        ("jpeg=40:50", "has 'jpeg=40:50'; expected jpeg=QUALITY"),
        ("jpeg=", "expected jpeg=QUALITY"),
        ("anisotropic=2", "expected anisotropic=SIGMA_X:SIGMA_Y\\[:ANGLE\\]"),
        ("anisotropic=2::3", "expected anisotropic=SIGMA_X"),
        ("realesrgan=2", "has 'realesrgan=2'; expected realesrgan"),
        ("down=2", "expected down"),
        ("jpeg=high", "has the strength 'high'; expected a number, as jpeg=QUALITY"),
        ("jpeg=0", "jpeg is 0; expected an integer from 1 to 100"),
        ("jpeg=40.5", "jpeg is 40.5; expected an integer"),
        ("webp=101", "webp is 101; expected an integer from 0 to 100"),
        ("jpeg=" + "9" * 400, "jpeg is inf"),
        ("blur=-1+jpeg=4", "blur is -1.0; expected a finite number from 0 up"),
        ("speckle=nan", "speckle is nan"),
        ("poisson=inf", "poisson is inf"),
        (
            "anisotropic=0:1",
            "sigma_x of anisotropic is 0.0; expected a finite number above 0 up to",
        ),
        ("anisotropic=1:51", "sigma_y of anisotropic is 51.0"),
        ("motion=0.5", "length of motion is 0.5; expected a finite number from 1 up to 200"),
        ("motion=5:1000", "angle of motion is 1000.0"),
        ("defocus=0", "defocus is 0.0"),
        ("sinc=4", "cutoff of sinc is 4.0; expected a finite number above 0 up to 3.14159"),
        ("sinc=1:20", "size of sinc is 20; expected an odd integer from 3 to 401"),
        ("resize=0.5", "factor of resize is 0.5; expected a finite number from 1 up"),
        ("resize=2:cubic", "method of resize is 'cubic'; expected one of nearest, bilinear"),
        ("salt-and-pepper=1.5", "salt-and-pepper is 1.5"),
        ("realesrgan+down", "down-sampled twice"),
        ("down+jpeg=3+down", "down-sampled twice"),
        ("blur=1+blur=2", "repeats a step"),
    ],
)
def test_recipes_that_are_not(text, words):
    with pytest.raises(ValueError, match=f"^degradation .*{words}") as error:
        Degradation.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [True, "2", None, 10**400])
def test_values_of_other_types_are_refused(value):
    with pytest.raises(ValueError, match="noise is"):
        Noise(value)
    with pytest.raises(ValueError, match="jpeg is"):
        Jpeg(value)


def test_the_help_of_commands_lists_every_step():
    for name, kind in STEPS.items():
        assert (f"{name}={kind.form}" if kind.form else f", {name}") in RECIPES


@pytest.mark.parametrize(
    ("item", "name", "recipe"),
    [
        ("blur=2", "blur", "blur=2"),
        ("blur=2+jpeg=40", "blur+jpeg", "blur=2+jpeg=40"),
        ("mist=blur=2+jpeg=40", "mist", "blur=2+jpeg=40"),
        ("sharp=clean", "sharp", "clean"),
        ("realesrgan", "realesrgan", "realesrgan"),
        ("mine=realesrgan", "mine", "realesrgan"),
        ("realesrgan+jpeg=30", "realesrgan+jpeg", "realesrgan+jpeg=30"),
        ("late=down+blur=2", "late", "down+blur=2"),
        ("motion=motion=5:30", "motion", "motion=5:30"),
        ("motion=5:30", "motion", "motion=5:30"),
        ("mine=realesrgn", "mine", "realesrgn"),
        ("noise=nan", "noise", "noise=nan"),
        ("blurr=2", "blurr", "blurr=2"),
        ("resize=2:area", "resize", "resize=2:area"),
    ],
)
def test_names_of_recipes(item, name, recipe):
    assert split_named(item) == (name, recipe)
    assert named_recipes([item]) == {name: recipe}


# --- the order


def test_steps_are_applied_as_they_are_written():
    gt = photograph()
    low = downsample(gaussian_blur(gt, 2.0), 2)[0]
    noisy = add_noise(low, 0.1, generator_of(5, 0, "noise"))
    expected = round_to_8_bit(jpeg(noisy, 40))
    assert torch.equal(Degradation.parse("blur=2+noise=0.1+jpeg=40")(gt, seed=5)[0], expected)
    before = jpeg(gt[0], 40)
    noisy = add_noise(downsample(before[None], 2)[0], 0.1, generator_of(5, 0, "noise"))
    assert torch.equal(
        Degradation.parse("jpeg=40+down+noise=0.1")(gt, seed=5)[0], round_to_8_bit(noisy)
    )
    late = gaussian_blur(add_noise(downsample(gt, 2)[0], 0.1, generator_of(5, 0, "noise"))[None], 1)
    own = Degradation.parse("noise=0.1+blur=1+gray-noise=0")(gt, seed=5)
    torch.testing.assert_close(own, round_to_8_bit(late), atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize(
    "text", ["anisotropic=1:2", "motion=5:20", "defocus=2", "sinc=1.5", "resize=2"]
)
def test_blurs_come_before_the_down_sampling(text):
    gt = photograph()
    recipe = Degradation.parse(text, 2, "bicubic")
    blurred = recipe.steps[0](gt[0], torch.Generator())
    assert torch.equal(recipe(gt), round_to_8_bit(downsample(blurred[None], 2, "bicubic")))
    assert not torch.equal(recipe(gt), Degradation.parse(f"down+{text}", 2, "bicubic")(gt))


@pytest.mark.parametrize("text", ["jpeg=5", "webp=5", "salt-and-pepper=0.5", "speckle=1"])
def test_other_steps_come_after_it(text):
    gt = photograph()
    assert torch.equal(Degradation.parse(text)(gt, 1), Degradation.parse(f"down+{text}")(gt, 1))
    assert not torch.equal(Degradation.parse(text)(gt, 1), Degradation.parse(f"{text}+down")(gt, 1))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_every_step_gives_an_8_bit_image_of_low_resolution(scale):
    texts = [
        "anisotropic=1:2:3", "motion=5", "defocus=2", "sinc=2", "resize=3:nearest", "poisson=1",
        "gray-noise=0.1", "speckle=1", "salt-and-pepper=0.1", "jpeg=10", "webp=10", "realesrgan",
    ]  # fmt: skip
    for text in texts:
        lq = Degradation.parse(text, scale)(photograph(), seed=2)
        assert lq.shape == (1, 3, 24 // scale, 32 // scale) and lq.dtype == torch.float32
        assert torch.equal(lq, round_to_8_bit(lq)) and lq.min() >= 0 and lq.max() <= 1


def test_gray_images_are_degraded_too():
    gt = photograph(channels=1)
    for text in ("jpeg=10", "webp=10", "gray-noise=0.1+motion=4", "realesrgan"):
        assert Degradation.parse(text)(gt).shape == (1, 1, 12, 16)


# --- seeds


def test_random_numbers_of_a_step_depend_on_no_other_step():
    gt = torch.full((1, 3, 8, 8), 0.5)
    alone = Degradation.parse("down+noise=0.1", 1)(gt, seed=3)
    assert torch.equal(Degradation.parse("poisson=0+noise=0.1", 1)(gt, seed=3), alone)
    twice = Degradation(scale=1, steps=(Noise(0.1), Noise(0.1)))
    assert (twice(gt, seed=3) - 0.5).std() == pytest.approx(0.141, rel=0.1), "not twice the same"
    assert not torch.equal(Degradation.parse("down+noise=0.1", 1)(gt, seed=4), alone)


def test_an_image_is_degraded_alike_in_batches_of_any_size():
    gt = photograph().repeat(3, 1, 1, 1)
    recipe = Degradation.parse("poisson=2+jpeg=30")
    lq = recipe(gt, seed=1)
    assert torch.equal(lq[:1], recipe(gt[:1], seed=1)) and not torch.equal(lq[0], lq[1])


def test_seeds_follow_the_name_and_the_papers_recipes_keep_theirs():
    new, old = Degradation.parse("jpeg=30"), Degradation.parse("noise=0.1")
    assert old.seed_of(0, "a", 17) == 17
    seeds = [
        new.seed_of(s, n, p) for s, n, p in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1))
    ]
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3
    assert seeds[0] == 344251059, "the same in every version"


def test_the_global_generator_and_the_input_stay_as_they_are():
    gt, state = photograph(), torch.get_rng_state()
    before = gt.clone()
    Degradation.parse("motion=3+noise=0.1+salt-and-pepper=0.1")(gt)
    Degradation.parse("realesrgan")(gt)
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(gt, before)


# --- functions


def darker(x, generator):
    return x / 2


def halved(x, generator):
    return x[:, ::2, ::2]


def noisy(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def test_functions_are_steps():
    gt = photograph()
    recipe = Degradation(steps=[darker, Jpeg(30)])
    assert isinstance(recipe.steps, tuple) and recipe.text == "darker+jpeg=30"
    expected = jpeg(downsample(gt / 2, 2)[0], 30)
    assert torch.equal(recipe(gt)[0], round_to_8_bit(expected))
    assert torch.equal(Degradation.of(halved, 2)(gt), round_to_8_bit(gt[..., ::2, ::2]))
    random = Degradation.of(noisy, 2)
    assert torch.equal(random(gt, 1), random(gt, 1)) and not torch.equal(
        random(gt, 1), random(gt, 2)
    )
    seen = []
    Degradation(scale=1, steps=(Noise(3.0), lambda x, g: seen.append(x) or x))(gt)
    assert seen[0].min() == 0 and seen[0].max() == 1, "functions get images in [0, 1]"


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda x, g: None, TypeError, "returns NoneType; expected a floating-point tensor"),
        (lambda x, g: x.long(), TypeError, "returns torch.int64"),
        (lambda x, g: x[:, 1:], ValueError, r"returns \[3, 23, 32\]; expected \[3, 24, 32\] or "),
        (lambda x, g: x * float("nan"), ValueError, "of finite values"),
    ],
)
def test_functions_that_return_no_image(function, error, words):
    with pytest.raises(error, match=words):
        Degradation.of(function, 2)(photograph())


def test_steps_that_are_none():
    with pytest.raises(ValueError, match="a function down-samples before 'down'"):
        Degradation(steps=(halved, Down()))(photograph())
    for steps in ("jpeg=40", 3):
        with pytest.raises(TypeError, match=r"steps is .*Degradation\.parse"):
            Degradation(steps=steps)
    for step in ("jpeg=40", Blur, None):
        with pytest.raises(TypeError, match=r"steps hold .*expected steps such as Blur"):
            Degradation(steps=(step,))
    with pytest.raises(ValueError, match=r"blur 2 and noise 0\.0 are given beside steps"):
        Degradation(blur=2, steps=(Jpeg(3),))
    with pytest.raises(TypeError, match="a degradation is 3; expected a recipe"):
        Degradation.of(3, 2)
    with pytest.raises(ValueError, match="'jpeg=3' has the scale 2; expected 4"):
        Degradation.of(Degradation.parse("jpeg=3"), 4)


# --- identities and combinations


def test_identities_tell_recipes_and_functions_apart():
    texts = ("jpeg=40", "jpeg=41", "blur=2", "clean", "blur=2+jpeg=40", "jpeg=40+blur=2")
    recipes = [Degradation.parse(text, scale) for text in texts for scale in (2, 3)]
    recipes += [Degradation.parse("jpeg=40", 2, "bicubic")]
    recipes += [Degradation.of(function, 2) for function in (darker, halved)]
    identities = [recipe.identity for recipe in recipes]
    assert None not in identities and len(set(identities)) == len(identities)
    assert Degradation.of(darker, 2).identity.startswith(f"{__name__}.darker@")


def test_an_edited_function_has_another_identity(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    identities = []
    for name, body in (("fog_one", "x / 2"), ("fog_two", "x / 3")):
        (tmp_path / f"{name}.py").write_text(f"def fog(x, generator):\n    return {body}\n")
        module = __import__(name)
        identities.append(Degradation.of(module.fog, 2).identity.partition("@")[2])
    assert identities[0] != identities[1]


def test_functions_without_an_identity():
    def inner(x, generator):
        return x

    class Fog:
        def __call__(self, x, generator):
            return x

    for function in (lambda x, g: x, inner, partial(darker), Fog(), Fog().__call__, torch.relu):
        assert Degradation.of(function, 2).identity is None
        assert Degradation(steps=(Jpeg(3), function)).identity is None


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("blur=2", "noise=0.1", "blur=2+noise=0.1"),
        ("blur=2", "blur=3+noise=0.1", "blur=3+noise=0.1"),
        ("noise=0.1", "motion=5", "motion=5:0+noise=0.1"),
        ("blur=2+jpeg=40", "defocus=2+webp=3", "blur=2+defocus=2+jpeg=40+webp=3"),
        ("jpeg=9+down+noise=1", "blur=2", "jpeg=9+blur=2+down+noise=1"),
        ("clean", "jpeg=9", "jpeg=9"),
        ("realesrgan", "blur=2+jpeg=9", "blur=2+realesrgan+jpeg=9"),
    ],
)
def test_two_degradations_at_once(one, other, both):
    combined = Degradation.parse(one, 3).combined(Degradation.parse(other, 3))
    assert combined.text == both and combined.scale == 3
    assert combined(photograph(36, 33)).shape == (1, 3, 12, 11)


def test_two_that_both_place_the_down_sampling_are_not_combined():
    recipe = Degradation.parse("realesrgan")
    assert recipe.combined(Degradation.parse("down+blur=2")) is None
