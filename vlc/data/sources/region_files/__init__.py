"""Regions as data sets publish them: COCO and its kin, panoptic segments, RefCOCO, Visual Genome."""

from vlc.data.sources.region_files.source import KIND, RegionFile

__all__ = ["KIND", "RegionFile"]
