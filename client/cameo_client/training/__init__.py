"""Training at one hospital: per-patient clipped gradients, histograms, and the noise that covers them."""
