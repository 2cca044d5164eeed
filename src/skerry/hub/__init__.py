"""The hub: the control plane. It keeps what is wanted, signs it, and hears what is."""
