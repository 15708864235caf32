"""Feature stores: where people's merged events live. `base` says what a store does, `sqlite` is one local file."""
