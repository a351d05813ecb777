"""Feedback on plans: what a plan violates, where and when, and which change helps. Structured first, text second."""
