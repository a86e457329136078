"""Moves bytes and messages between nodes; knows no saga."""
