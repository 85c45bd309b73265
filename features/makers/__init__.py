"""Makers of words: what says captions, tags and fields of pictures, each with its source. See `base`."""

from features.makers.base import MakerError, MakerOptions, WordMaker, create_maker, maker_names, register_maker

__all__ = ["MakerError", "MakerOptions", "WordMaker", "create_maker", "maker_names", "register_maker"]
