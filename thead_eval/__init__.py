"""theval: how real are few-shot talking-head fakes, and can they be told from real video?

The public API. Every name here is stable between minor versions; the sibling packages are not.
"""

__version__ = "0.1.0"
