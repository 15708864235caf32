"""Marquee's contract: protos, bundles, the feature encoding, the engine and the client SDK."""

__version__ = "0.1.0"
