"""Objectives beside the masked error: each file registers its own, and every file is loaded."""
