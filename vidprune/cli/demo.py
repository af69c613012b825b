"""`vidprune demo`: the whole path on the shipped model and clips."""
