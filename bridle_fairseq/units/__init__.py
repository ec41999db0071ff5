"""Discrete units: codes as sequences of numbers or characters, SentencePiece models of them, and audio from them."""
