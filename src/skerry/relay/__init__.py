"""The relay: a gateway inside a network segment; caches blobs and desired state, stores and forwards reports."""
