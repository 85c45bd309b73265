"""What there is to search: collections of image files, each with its labels. One file for each kind of dataset."""

from features.datasets.base import Dataset, DatasetError, Item, common_folder, origin_of, reading_options, source_of
from features.datasets.caltech import Caltech101
from features.datasets.demo import Demo
from features.datasets.folder import ImageFolder
from features.datasets.registry import (
    add_folder_options,
    as_recorded,
    dataset_names,
    folder_options,
    open_dataset,
    register_dataset,
    reopen_dataset,
    spec_of,
)
from features.datasets.voc import VOC2012

__all__ = [
    "VOC2012",
    "Caltech101",
    "Dataset",
    "DatasetError",
    "Demo",
    "ImageFolder",
    "Item",
    "add_folder_options",
    "as_recorded",
    "common_folder",
    "dataset_names",
    "folder_options",
    "open_dataset",
    "origin_of",
    "reading_options",
    "register_dataset",
    "reopen_dataset",
    "source_of",
    "spec_of",
]
