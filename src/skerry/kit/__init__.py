"""Values without domain words: errors, digests, identifiers, quantities, instants, canonical JSON."""
