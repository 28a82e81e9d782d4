"""Growth maps: what a coordinate has grown to when its dual stands at z."""
