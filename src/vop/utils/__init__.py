"""General helpers, independent of videos and models."""
