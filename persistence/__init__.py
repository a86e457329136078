"""LMDB: one environment a node, one writer, one fsync for many; knows no saga."""
