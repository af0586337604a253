"""Data sets with human gaze, one file each."""
