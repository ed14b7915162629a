"""Photographs, degradations, and folders of images."""

from faigfast.data.degradations import Degradation
from faigfast.data.folders import DegradedFolder, PairedFolders
from faigfast.data.images import read_image, write_image
from faigfast.data.photographs import KEPT_OUT, TRAINING, photographs

__all__ = [
    "KEPT_OUT",
    "TRAINING",
    "Degradation",
    "DegradedFolder",
    "PairedFolders",
    "photographs",
    "read_image",
    "write_image",
]
