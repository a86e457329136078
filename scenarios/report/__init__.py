"""What is kept of a run beside its result: a page for people, and a trace for viewers of traces."""
