"""MetaCLIP 2, worldwide."""
