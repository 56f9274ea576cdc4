"""Sky maps: HEALPix densities with contours, their files and pictures."""
