"""Late-phase weights: pure functions of arrays, without input or output."""
