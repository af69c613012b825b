"""`vidprune visualize`: pictures of what is kept and of what the proposal saw."""
