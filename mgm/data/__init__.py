"""Datasets: published lists, folders of videos, their preparation, indices, clips, the loader."""
