"""Words that are spoken or written in videos: subtitles and speech, their table, and the search for them."""
