"""Bundles: written once, verified before use, published through a registry."""

from marquee.bundle.format import Bundle, BundleWriter, open_bundle

__all__ = ["Bundle", "BundleWriter", "open_bundle"]
