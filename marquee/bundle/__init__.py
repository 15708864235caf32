"""Bundles: written once, verified before use (`format`), published through a registry (`registry`)."""
