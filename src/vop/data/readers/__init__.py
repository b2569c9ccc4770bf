"""Readers: one for each format of annotations, found by the data set's name."""
