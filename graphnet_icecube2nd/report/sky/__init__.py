"""Sky maps: HEALPix densities with their contours, files, pictures."""
