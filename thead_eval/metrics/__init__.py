"""Metrics, one file a family: functions of frames, of features, or of sets of features."""
