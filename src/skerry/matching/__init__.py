"""Pure matching: label selectors, and which variant of a model fits a host."""
