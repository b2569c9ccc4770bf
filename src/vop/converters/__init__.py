"""Convert checkpoints of other projects to ordinary folders, without executing anything in them."""
