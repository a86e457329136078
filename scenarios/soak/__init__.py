"""The soak: a cluster is killed for a quarter of an hour, and its books are audited again and again."""
