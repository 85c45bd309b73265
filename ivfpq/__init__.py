"""IVFPQ, written from scratch: an inverted file with product quantization (Jégou, Douze, Schmid 2011)."""
