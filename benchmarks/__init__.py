"""The protocols: what is generated from what, and what is judged against what."""
