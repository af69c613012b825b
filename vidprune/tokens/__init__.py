"""Pure tensor maths on tokens: score maps to token scores, selection, reduction, rounding. Knows no model library."""
