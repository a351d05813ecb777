"""SE(2) frames, boxes and polygons as arrays."""
