"""Direct preference optimisation, IPO and their length-normalised variants."""
