"""Small ncnn networks, written by the tests, and their outputs in ncnn itself."""

import numpy as np
import torch

FLOAT16 = 0x01306B47
INT8 = 0x000D4B38


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def array(tensor, flag=None):
    """Bytes of an array: without a flag, as float32 (flag 0) or as float16."""
    data = tensor.numpy()
    if flag is None:
        return data.astype("<f4").tobytes()
    kind = "<f2" if flag == FLOAT16 else "<f4"
    content = data.astype(kind).tobytes()
    return flag.to_bytes(4, "little") + content + bytes(-len(content) % 4)


def write_pair(path, lines, arrays=(), counts=None):
    """Write NAME.param, with its first two lines, and NAME.bin; give the first."""
    if counts is None:
        blobs = {
            w for line in lines for w in line.split()[4 : 4 + sum(map(int, line.split()[2:4]))]
        }
        counts = f"{len(lines)} {len(blobs)}"
    path.write_text("\n".join(["7767517", counts, *lines, ""]))
    path.with_suffix(".bin").write_bytes(b"".join(arrays))
    return path


def convolution(folder, name="net", flag=0, seed=0):
    """Write a network of two convolutions, valid and strided back: 3 → 4 → 3 channels, ×2."""
    lines = [
        "Input in0 0 1 in0",
        "Convolution conv1 1 1 in0 a 0=4 1=3 5=1 6=108 9=2 -23310=1,0.1",
        "Deconvolution up.2 1 1 a out0 0=3 1=4 3=2 4=3 5=1 6=192",
    ]
    arrays = [
        array(0.2 * values(4, 3, 3, 3, seed=seed), flag),
        array(0.1 * values(4, seed=seed + 1)),
        array(0.2 * values(3, 4, 4, 4, seed=seed + 2), flag),
        array(0.1 * values(3, seed=seed + 3)),
    ]
    return write_pair(folder / f"{name}.param", lines, arrays)


def output_of_ncnn(path, x, first="in0", last="out0"):
    """Run ncnn in float32 on one sample without its axis of images."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    halves = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
    # These round more than a plain convolution does.
    for name in (*halves, "use_winograd_convolution", "use_sgemm_convolution"):
        setattr(net.opt, name, False)
    assert net.load_param(str(path)) == 0
    assert net.load_model(str(path.with_suffix(".bin"))) == 0
    extractor = net.create_extractor()
    extractor.input(first, ncnn.Mat(x.numpy()).clone())
    status, result = extractor.extract(last)
    assert status == 0
    return torch.from_numpy(np.array(result))
