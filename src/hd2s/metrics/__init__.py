"""Metrics of video saliency."""
