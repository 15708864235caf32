"""The whole loop on one machine: train, publish, serve, recommend, watch the list move, stop everything."""
