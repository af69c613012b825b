"""From predictions to figures that can be trusted."""
