"""Discrete units: codes as text, SentencePiece models on them, and sound from them."""
