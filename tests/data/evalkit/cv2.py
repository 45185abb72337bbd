"""Stands in for OpenCV: the version is all that is asked of it."""

__version__ = "4.10.0"
