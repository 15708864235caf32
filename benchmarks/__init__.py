"""What Marquee costs on this machine: training, start-up, latency and the demo, each against its goal."""
