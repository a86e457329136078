"""`run_sim.py bench`: how fast the product is, beside the limit that the wire and the disk set it in the same run."""
