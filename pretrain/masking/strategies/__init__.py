"""Masking strategies: each file registers its own, and every file in this folder is loaded."""
