"""AltCLIP."""
