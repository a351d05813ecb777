"""Readers of NAVSIM's on-disk format: log pickles, map GeoPackages, camera images."""
