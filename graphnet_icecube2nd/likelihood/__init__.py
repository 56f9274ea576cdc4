"""Classic fits: line fit, photon likelihood, its maximum."""
