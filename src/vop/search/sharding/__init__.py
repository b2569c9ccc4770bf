"""Index in shards: a plan cuts the files into shards, workers write their rows, one committer publishes them."""
