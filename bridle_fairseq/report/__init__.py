"""Pages about runs: what was trained, how it went, what came out; one HTML file that needs nothing else."""
