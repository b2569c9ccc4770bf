"""OpenAI's CLIP: two towers, their sizes and their tokenizer."""
