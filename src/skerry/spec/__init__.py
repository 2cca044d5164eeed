"""What people write and what is signed: frozen types, one module per kind, and the checks that belong to them."""
