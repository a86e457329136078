"""The command line: its words, and what each command does, from its options to its exit status."""
