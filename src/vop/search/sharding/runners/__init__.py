"""Ways to run the workers of a plan: each is a generator of the shards that are finished."""
