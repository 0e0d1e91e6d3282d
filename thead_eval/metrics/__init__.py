"""One file a family of metrics; each metric is a value whose name fixes all its settings."""
