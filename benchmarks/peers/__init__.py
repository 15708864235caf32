"""Marquee's serving beside what people would pick instead: the same model file, the same requests, one core each."""
