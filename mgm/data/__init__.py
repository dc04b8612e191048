"""Datasets: published lists, folders of videos, drawn videos, indexes and copies."""
