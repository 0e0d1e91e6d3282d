"""Detectors of talking-head fakes."""
