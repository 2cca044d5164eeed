"""Container images for a release: read from wherever they are, verified, and kept as uncompressed layers.

Rules: what an image is, is decided by digests alone: a layer's by the configuration, the configuration's by the
manifest, the manifest's by whoever names it. Every size is bounded before its content is looked at. No path of
an archive ever becomes a path of this machine.
"""
