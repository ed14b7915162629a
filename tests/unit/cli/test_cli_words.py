"""The words of the command line: help, spellings, hints and completion."""

import re
import shlex
import subprocess
import sys

import pytest
from cases.command_line import one_line

from faigfast.cli.command_groups import EXAMPLES, GROUPS
from faigfast.cli.main import build_parser, main
from faigfast.cli.option_names import with_options
from faigfast.cli.options import COMMANDS

ATTRIBUTE = ["attribute", "a.pth", "b.pth", "--gt", "g", "--output", "o", "--degrade", "blur=1"]


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 2
    return one_line(capsys)


# Help


def test_every_command_is_in_one_group_with_an_example():
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(COMMANDS)


def test_the_overview_shows_groups_and_examples(capsys):
    text = help_of(capsys)
    for title, group in GROUPS.items():
        assert f"\n  {title}\n" in text
        for name, example in group.items():
            assert re.search(rf"^    {name} +\S", text, re.MULTILINE)
            assert f"$ {example}\n" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_valid_and_in_its_help(capsys, name):
    options = build_parser().parse_args(shlex.split(EXAMPLES[name])[1:])
    assert options.command == name
    assert f"example:\n  {EXAMPLES[name]}\n" in help_of(capsys, name)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_has_no_python_in_it(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "250")
    text = help_of(capsys, *([name] if name else []))
    for noise in ("type:", "null", "None", "<class", "[0", "True", "False", "default: {", "Union"):
        assert noise not in text.replace("[0, 1]", ""), noise
    assert max(map(len, text.splitlines())) <= 100
    usage = text.partition("\n\n")[0]
    assert usage.startswith(f"usage: faigfast {name or 'COMMAND'}") and "\n" not in usage
    assert not re.findall(r"--\w+_\w+", text)  # options have one spelling there


def test_defaults_stand_as_they_are_typed(capsys):
    text = " ".join(help_of(capsys, "mask").split())
    assert "(default: 0.01 0.03 0.05 0.1)" in text and "(default: 96)" in text
    assert "(required)" in help_of(capsys, "attribute")
    assert "(default: 0.0005)" in help_of(capsys, "baseline")


# Spellings


@pytest.mark.parametrize(
    ("word", "value"), [("--crop-to", 4), ("--crop_to", 4), ("--crop-to=4", 4), ("--crop_to=4", 4)]
)
def test_an_option_has_two_spellings(word, value):
    words = [word] if "=" in word else [word, str(value)]
    assert build_parser().parse_args([*ATTRIBUTE, *words]).attribute.crop_to == value


def test_every_option_has_two_spellings():
    for command in build_parser()._subcommands_action.choices.values():
        for action in command._actions:
            for name in action.option_strings:
                if name.startswith("--") and name != "--print-config":
                    both = {"--" + name[2:].replace("_", "-"), "--" + name[2:].replace("-", "_")}
                    assert both <= set(action.option_strings) or action.dest == "help", name


def test_abbreviations_count_both_spellings_once(recwarn):
    options = build_parser().parse_args(["mask", "--noise", "0.1"])
    assert options["mask"].noise_level == 0.1
    assert not recwarn.list


@pytest.mark.parametrize("word", ["--print-config", "--print_config"])
def test_configurations_keep_their_keys(capsys, tmp_path, word):
    with pytest.raises(SystemExit):
        main([*ATTRIBUTE, "--crop-to", "4", word])
    text = capsys.readouterr().out
    assert "\ncrop_to: 4\n" in text
    (tmp_path / "old.yaml").write_text("crop_to: 8\nlq_name: '{}x2'\nbaseline_key: params\n")
    options = build_parser().parse_args(
        [ATTRIBUTE[0], "--config", str(tmp_path / "old.yaml"), *ATTRIBUTE[1:]]
    )["attribute"]
    assert (options.crop_to, options.lq_name, options.baseline_key) == (8, "{}x2", "params")


# Hints


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["atribute"], "there is no command 'atribute' (did you mean 'attribute'?); expected"),
        (
            ["mask", "--mesured", "4"],
            "no option --mesured (did you mean '--measured'?) (faig",
        ),
        (["mask", "--Traget_key=x"], "no option --Traget_key (did you mean '--target-key'?)"),
        (
            ["mask", "--by", "kernal"],
            "--by is 'kernal' (did you mean 'kernel'?); expected",
        ),
        (["mask", "--downsampling", "bicubik"], "(did you mean 'bicubic'?)"),
        (["train", "--output", "o", "--network", "vgg"], "--network is 'vgg'; expected one of sr"),
        (["mask", "a", "b", "c"], "c: too many words"),
        (["mask", "--crop"], "--crop has too few values"),
        (["mask", "--crop", "x"], "--crop: 'x' is given; expected an integer"),
        (["mask", "--fractions", "0.1", "x"], "--fractions: 'x' is given; expected a number"),
        (["attribute", "a", "b"], "--gt and --output are missing"),
        (["attribute", "--gt", "g", "--output", "o"], "baseline and target are missing"),
        ([], "no command is given; expected one of attribute, "),
        ([*ATTRIBUTE, "--memory", "5 parsecs"], "memory is '5 parsecs'; expected bytes"),
    ],
)
def test_wrong_words_are_refused_with_a_hint(capsys, words, message):
    text = refusal(capsys, *words)
    assert message in text and "<class" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--degrade", "blurr=2"], "no step is called 'blurr' (did you mean 'blur'?)"),
        (["--method", "fiag"], "method is 'fiag' (did you mean 'faig'?); expected one of"),
        (["--rule", "midpiont"], "rule is 'midpiont' (did you mean 'midpoint'?)"),
        (["--rule", "simpson"], "rule is 'simpson'; expected"),
        (["--backend", "refrence"], "(did you mean 'reference'?)"),
        (["--objective", "squared_eror"], "(did you mean 'squared_error'?)"),
        (["--precision", "bf61"], "(did you mean 'bf16'?)"),
    ],
)
def test_wrong_names_are_refused_with_a_hint(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("faigfast.cli.attribute.load_networks", lambda _: (None, Scaled()))
    monkeypatch.setattr("faigfast.cli.attribute.image_channels", lambda _: 3)
    assert main([*ATTRIBUTE, *words]) == 1
    assert message in one_line(capsys)


class Scaled:
    """As much of a network as the recipes need."""

    scale = 2


def test_methods_and_metrics_have_hints(capsys):
    assert main(["mask", "--methods", "faig", "magnitud"]) == 1
    assert "hold 'magnitud' (did you mean 'magnitude'?)" in one_line(capsys)


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
@pytest.mark.parametrize("option", ["--print-shtab", "--print_shtab"])
def test_completion_scripts_are_printed(capsys, shell, option):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as end:
        main([option, shell])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "attribute" in text and "crop-to" in text and "{kernel" not in text


def test_bash_reads_the_script(capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit):
        main(["--print-shtab", "bash"])
    script = capsys.readouterr().out
    asked = f"""{script}
COMP_WORDS=(faigfast mask --by ke) COMP_CWORD=3
_shtab_faigfast faigfast ke --by
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True)
    assert done.stdout.split() == ["kernel"], done.stderr


def test_without_shtab_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "pip install 'faigfast[cli]'" in refusal(capsys, "--print-shtab", "bash")


@pytest.mark.parametrize(
    ("message", "options", "text"),
    [
        ("learning_rate is 0.0; expected", {"rate": 0.0}, "--rate is 0.0; expected"),
        ("a lower learning_rate than 1", {"rates": [1, 1]}, "a lower --rates than 1"),
        ("learning_rate is 0.0", {"steps": 1}, "learning_rate is 0.0"),
        ("fraction is 2.0", {"fractions": [2.0]}, "--fractions is 2.0"),
        ("lq_name is given without --lq", {"lq_name": "x"}, "--lq-name is given without --lq"),
        ("target is frozen", {"target": "b.pth"}, "target is frozen"),  # no option
        ("batch 3 is fine", {"batch": 3}, "batch 3 is fine"),
        ("steps is 0", None, "steps is 0"),
    ],
)
def test_messages_name_the_option_that_was_typed(message, options, text):
    assert with_options(message, options) == text


@pytest.mark.parametrize(
    ("command", "default"),
    [("dial", "default noise=0.1, and always clean"), ("mask", "default blur=2 noise=0.1")],
)
def test_the_default_degradations_of_a_command_stand_in_its_help(capsys, command, default):
    assert default in " ".join(help_of(capsys, command).split())
