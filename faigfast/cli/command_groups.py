"""The commands in groups, with one example each, as `faigfast --help` shows them."""

GROUPS: dict[str, dict[str, str]] = {
    "Start here": {
        "demo": "faigfast demo --output first-look",
        "doctor": "faigfast doctor",
        "report": "faigfast report baseline.pth target.pth --gt photos --degrade blur=2 noise=0.1",
    },
    "Rank filters": {
        "attribute": "faigfast attribute base.pth target.pth --gt photos --degrade blur=2 "
        "--output out",
        "sweep": "faigfast sweep plan.yaml sweep --workers 8",
        "baseline": "faigfast baseline target.pth --output baseline.pth",
        "train": "faigfast train --output pair --network edsr",
    },
    "Use the filters": {
        "dial": "faigfast dial target.pth --degrade noise=0.1 --output less-denoising",
        "modulate": "faigfast modulate --set blur=0.5 --save half.pth",
        "retrain": "faigfast retrain --fraction 0.03",
        "predict": "faigfast predict --images unknown",
        "prune": "faigfast prune --keep blur",
    },
    "Examine the filters": {
        "mask": "faigfast mask --methods faig magnitude --measured 4",
        "ablate": "faigfast ablate --pair srcnn-24x4-x2 --crop 48",
        "locations": "faigfast locations --fraction 0.01",
        "overlap": "faigfast overlap --degrade blur-1=blur=1 blur-3=blur=3 noise=0.1",
        "distribution": "faigfast distribution --heads 8",
        "style": "faigfast style",
    },
    "Measure faigfast itself": {
        "accuracy": "faigfast accuracy --by-size",
        "bench": "faigfast bench --workloads srresnet-48x4",
    },
}
EXAMPLES = {name: text for group in GROUPS.values() for name, text in group.items()}
