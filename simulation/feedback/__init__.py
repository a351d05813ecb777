"""Feedback on a plan: what it violates, where and when, and what must change. Structured first, text second."""
