"""Run records to one self-contained HTML file; nothing here computes a metric."""
