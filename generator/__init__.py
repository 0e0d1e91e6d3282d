"""Talking-head generators: the bundled few-shot system, its controls, and the systems it is compared with."""
