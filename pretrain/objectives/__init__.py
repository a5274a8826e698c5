"""Objectives: the masked error, losses trained beside it, and the balance of their gradients."""
