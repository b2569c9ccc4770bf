"""Helpers that know nothing of videos or models."""
