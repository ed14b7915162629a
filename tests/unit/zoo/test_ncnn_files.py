"""Files that are no ncnn network, damaged or hostile: one clear error, soon and cheaply."""

import os
import time
import tracemalloc

import pytest
import torch
from cases.ncnn_files import FLOAT16, INT8, array, convolution, values, write_pair

from faigfast.zoo.ncnn import is_ncnn, read_network

INPUT = "Input in0 0 1 in0"
HUGE = 10**12


def refused(path, *words):
    """Reading must end in one sentence with these words, without hanging, in 16 MB."""
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_network(path)
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(error.value)
    assert "\n" not in message and len(message) < 1500
    for word in words:
        assert word in message, message
    assert seconds < 20  # scripts/faults measures the second on an idle machine
    assert peak < 2**24


LINES = {
    "no magic": (["hello"], ("begins with 'hello'", "7767517")),
    "old magic": (["7767516", "1 1", INPUT], ("begins with '7767516'",)),
    "counts missing": (["7767517"], ("second line", "numbers of layers and blobs")),
    "counts of words": (["7767517", "one 1", INPUT], ("'one 1'",)),
    "counts of 10^9": (["7767517", "500000000 1", INPUT], ("declares 500000000 layers", "has 1")),
    "blobs of 10^9": (["7767517", "1 500000000", INPUT], ("500000000 blobs",)),
    "counts of 400 digits": (["7767517", "9" * 400 + " 1", INPUT], ("second line",)),
    "too few layers": (["7767517", "2 1", INPUT], ("declares 2 layers and has 1",)),
    "too few blobs": (
        ["7767517", "2 1", INPUT, "ReLU r 1 1 in0 o"], ("declares 1 blobs and has 2",)),
    "no layer": (["7767517", "0 0"], ("expected 1 to",)),
}  # fmt: skip
LAYERS = {
    "short line": (["ReLU r"], ("line 4", "'ReLU r'")),
    "negative count": (["ReLU r -1 1 in0 out0"], ("line 4",)),
    "count beyond the names": (["ReLU r 2 1 in0 out0"], ("declares 2 inputs and 1 outputs",)),
    "count below the names": (["ReLU r 1 1 in0 out0 out1"], ("number=value", "'out1'")),
    "count of 10^9": (["ReLU r 500000000 1 in0 out0"], ("line 4",)),
    "count before parameters": (
        ["ReLU r 1 2 in0 out0 0=1.0"], ("1 inputs and 2 outputs", "names 2")),
    "unknown blob": (["ReLU r 1 1 other out0"], ("layer r (ReLU)", "other", "no layer makes")),
    "cycle": (["Concat a 2 1 in0 c b", "ReLU c 1 1 b c"], ("before layer c makes it", "cycles")),
    "use before": (["ReLU a 1 1 b out0", "ReLU b 1 1 in0 b"], ("before layer b makes it",)),
    "own output": (["ReLU a 1 1 a a"], ("takes the blob a before",)),
    "made twice": (["ReLU a 1 1 in0 b", "ReLU c 1 1 in0 b"], ("makes the blob b, as layer a",)),
    "two outputs": (["ReLU a 1 1 in0 b", "ReLU c 1 1 in0 d"], ("2 outputs ('b', 'd')",)),
    "two inputs": (["Input in1 0 1 b", "Concat c 2 1 in0 b out0"], ("2 inputs ('in0', 'b')",)),
    "wrong number of inputs": (["BinaryOp a 1 1 in0 out0"], ("has 1 inputs; expected 2",)),
    "unknown types": (
        ["LSTM a 1 1 in0 b", "GroupNorm c 1 1 b d", "ReLU e 1 1 d f"],
        ("'a' ('LSTM'), 'c' ('GroupNorm')", "not supported", "Convolution"),
    ),
    "integer of 10^12": ([f"Convolution a 1 1 in0 out0 0={HUGE} 1=3 6=1"], ("32 bits", str(HUGE))),
    "a size of NaN": (["Convolution a 1 1 in0 out0 0=nan 1=3 6=27"], ("0=nan", "finite")),
    "infinite": (["ReLU a 1 1 in0 out0 0=inf"], ("0=inf", "finite")),
    "overflow": (["ReLU a 1 1 in0 out0 0=1e999"], ("finite",)),
    "real size": (["Convolution a 1 1 in0 out0 0=3.0 1=3 6=27"], ("0=3.0", "integer from 1")),
    "integer slope": (["ReLU a 1 1 in0 out0 0=1"], ("the integer 1", "1.0")),
    "no number": (["ReLU a 1 1 in0 out0 slope"], ("'slope'", "number=value")),
    "two values": (["ReLU a 1 1 in0 out0 0=0.1 0=0.2"], ("two values for its parameter 0",)),
    "high number": (["ReLU a 1 1 in0 out0 99=1"], ("the parameter 99", "0 to 31")),
    "array of wrong length": (["ReLU a 1 1 in0 out0 -23300=9,1"], ("array of 1 values",)),
    "unknown parameter": (["ReLU a 1 1 in0 out0 7=3"], ("7=3", "not supported")),
    "text parameter": (
        ["Crop a 1 1 in0 out0 19=\"size(@0,0)\""],
        ("expressions as parameters: 'a' ('Crop') 19='size(@0,0)'", "expected numbers")),
    "text without an end": (["Reshape a 1 1 in0 out0 6=\"0w,"], ("6=", "finite numbers")),
    "text and number": (["Reshape a 1 1 in0 out0 6=1 6=\"0w\""], ("two values", "parameter 6")),
    "all at once": (
        ["LSTM a 1 1 in0 b", "Reshape c 1 1 b d 6=\"0w,-1\"", "Interp e 1 1 d f 9=\"*(0w,2)\"",
         "Convolution g 1 1 f h 0=3 1=1 6=9 8=1", "InnerProduct i 1 1 h out0 0=3 2=9 8=2"],
        ("not supported: 'a' ('LSTM');", "'c' ('Reshape') 6='0w,-1', 'e' ('Interp') 9='*(0w,2)'",
         "int8 (parameter 8): 'g' ('Convolution'), 'i' ('InnerProduct');", "before quantization")),
    "dynamic weights": (["Convolution a 1 1 in0 out0 0=1 1=1 6=1 19=1"], ("19=1",)),
    "quantized": (["Convolution a 1 1 in0 out0 0=3 1=1 6=9 8=1"], ("int8 (parameter 8)",)),
    "no weights": (["Convolution a 1 1 in0 out0 0=3 1=3"], ("6=0", "integer from 1")),
    "no kernel": (["Convolution a 1 1 in0 out0 0=3 1=0 6=9"], ("1=0",)),
    "kernel of 10^9": (["Pooling a 1 1 in0 out0 1=500000000"], ("1=500000000", "4096")),
    "uneven weights": (["Convolution a 1 1 in0 out0 0=3 1=3 6=28"], ("multiple of 27",)),
    "uneven groups": (
        ["ConvolutionDepthWise a 1 1 in0 out0 0=3 1=1 6=6 7=2"], ("3 outputs in 2 groups",)),
    "weights beyond the file": (
        ["Convolution a 1 1 in0 out0 0=1000 1=1 6=2000000000"], ("layer a (Convolution)", "needs")),
    "constant beyond the file": (
        ["MemoryData m 0 1 a 0=2000000 1=2000000 2=2000", "Concat c 2 1 in0 a out0"], ("needs",)),
    "norm beyond the file": (["BatchNorm a 1 1 in0 out0 0=2000000000"], ("needs 8000000000",)),
    "border of 10^9": (["Padding a 1 1 in0 out0 0=500000000"], ("0=500000000",)),
    "zoom of 10^9": (["Interp a 1 1 in0 out0 0=1 1=1e9 2=1e9"], ("factors above 0",)),
    "shuffle of 10^9": (["PixelShuffle a 1 1 in0 out0 0=500000000"], ("0=500000000",)),
    "zooms of 10^6": (
        ["Interp a 1 1 in0 b 0=1 1=32.0 2=32.0", "Interp c 1 1 b out0 0=1 1=32.0 2=32.0"],
        ("layer c (Interp)", "1024 times", "at most")),
    "channels that double": (
        ["MemoryData m 0 1 b0 0=2 1=2 2=16 21=1"]
        + [f"Concat c{i} 2 1 b{i} b{i} b{i + 1}" for i in range(30)]
        + ["BinaryOp e 2 1 in0 b30 out0"], ("layer c16", "2097152 channels")),
    "activation without its slope": (
        ["Convolution a 1 1 in0 out0 0=1 1=1 6=1 9=2"], ("0 values for its activation 2",)),
    "unequal channels": (
        ["PReLU p 1 1 in0 b 0=1", "Padding a 1 1 b c 7=3 8=1", "Slice s 1 1 c d -23300=1,2",
         "PixelShuffle x 1 1 d out0 0=2"], ("takes 2 channels", "multiple of 4")),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_first_lines(tmp_path, name):
    lines, words = LINES[name]
    path = tmp_path / "net.param"
    path.write_text("\n".join(lines))
    path.with_suffix(".bin").write_bytes(b"")
    refused(path, "net.param", *words)


@pytest.mark.parametrize("name", LAYERS)
def test_lines_of_layers(tmp_path, name):
    lines, words = LAYERS[name]
    counts = f"{1 + len(lines)} 99"
    refused(
        write_pair(tmp_path / "net.param", [INPUT, *lines], [array(values(64))], counts), *words
    )


def test_truncated_and_trailing_bytes(tmp_path):
    path = convolution(tmp_path)
    content = path.with_suffix(".bin").read_bytes()
    for size in (0, 3, 4, 100, 4 + 432, len(content) - 1):
        path.with_suffix(".bin").write_bytes(content[:size])
        refused(path, "net.bin is truncated", "bytes from byte")
    path.with_suffix(".bin").write_bytes(content + b"\0")
    refused(path, f"net.bin has {len(content) + 1} bytes, 1 more than", "net.param declares")


def test_a_truncated_float16_array(tmp_path):
    line = "Convolution a 1 1 in0 out0 0=3 1=1 6=9"
    content = array(values(9), FLOAT16)
    assert len(content) == 4 + 20
    path = write_pair(tmp_path / "net.param", [INPUT, line], [content])
    assert read_network(path).get_parameter("a.weight").shape == (3, 3, 1, 1)
    for size in (4 + 17, 4 + 18):
        path.with_suffix(".bin").write_bytes(content[:size])
        refused(path, "truncated")


def test_storages_that_are_no_floats_are_named(tmp_path):
    line = "Convolution a 1 1 in0 out0 0=3 1=1 6=9"
    for flag, kind in ((INT8, "as int8"), (0x01020304, "a table of 256 values")):
        path = write_pair(tmp_path / "net.param", [INPUT, line], [array(values(9), flag)])
        refused(path, "layer a (Convolution)", kind, f"0x{flag:08X}")


def test_missing_files_folders_pipes_and_links(tmp_path):
    path = convolution(tmp_path)
    weights = path.with_suffix(".bin")
    content = weights.read_bytes()
    weights.unlink()
    refused(path, "there is no file", "net.bin", "weights of", "net.param")
    weights.mkdir()
    refused(path, "net.bin is a folder")
    weights.rmdir()
    os.mkfifo(weights)
    refused(path, "net.bin is a named pipe")
    weights.unlink()
    weights.symlink_to(weights)
    refused(path, "link that leads to itself")
    weights.unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    weights.symlink_to(tmp_path / "elsewhere")
    assert read_network(path).scale == 2
    path.unlink()
    refused(path, "there is no file", "net.param")
    os.mkfifo(path)
    refused(path, "net.param is a named pipe")
    with pytest.raises(ValueError, match=r"net\.param is a named pipe"):
        is_ncnn(path)


def test_files_that_are_too_large_are_not_read(tmp_path):
    path = convolution(tmp_path)
    os.truncate(path.with_suffix(".bin"), 2**40)
    refused(path, "net.bin has 1099511627776 bytes", "at most")
    os.truncate(path, 2**40)
    refused(path, "net.param has more than")


def test_no_text(tmp_path):
    path = tmp_path / "net.param"
    path.write_bytes(b"\xdd\x85\x76\x00\x01\x02")
    refused(path, "binary .param.bin", "text .param file")
    path.write_bytes(b"7767517\n\xff\xfe")
    refused(path, "no text in UTF-8")
    path.write_text(f"7767517\n1 1\nInput {'x' * 300} 0 1 in0\n")
    refused(path, "at most 255 printable bytes")
    path.write_text("")
    refused(path, "begins with no line")


def test_the_most_layers(tmp_path):
    lines = [f"Convolution c{i} 1 1 b{i} b{i + 1} 0=1 1=1 6=1" for i in range(4_999)]
    arrays = [bytes(8 * 4_999 - 1)]
    path = write_pair(tmp_path / "net.param", ["Input i 0 1 b0", *lines], arrays, "5000 5000")
    with pytest.raises(ValueError, match="truncated"):
        read_network(path)
    lines.append("ReLU more 1 1 b4999 out0")
    path = write_pair(tmp_path / "net.param", ["Input i 0 1 b0", *lines], (), "5001 5001")
    with pytest.raises(ValueError, match=r"declares 5001 layers.*5000"):
        read_network(path)


def test_which_files_are_ncnns(tmp_path):
    path = convolution(tmp_path)
    assert is_ncnn(path)
    torch.save({}, tmp_path / "net.pth")
    assert not is_ncnn(tmp_path / "net.pth")
    assert not is_ncnn(tmp_path / "missing.pth")
    assert not is_ncnn(tmp_path)
    renamed = tmp_path / "net.txt"
    renamed.write_bytes(path.read_bytes())
    assert is_ncnn(renamed)
    for flag in (0, FLOAT16):
        convolution(tmp_path, flag=flag)
        with pytest.raises(ValueError, match=r"weights of ncnn without the layers.*net\.param"):
            is_ncnn(tmp_path / "net.bin")
    (tmp_path / "net.param.bin").write_bytes(b"\xdd\x85\x76\x00\x03\0\0\0")
    with pytest.raises(ValueError, match=r"net\.param\.bin is a binary \.param\.bin file"):
        is_ncnn(tmp_path / "net.param.bin")
