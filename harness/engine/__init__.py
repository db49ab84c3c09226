"""The engine: worker processes, timing, training and scoring, and the order in which they happen."""
