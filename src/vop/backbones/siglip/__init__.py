"""SigLIP, and SigLIP 2 of a fixed resolution."""
