"""Client and command line of gradgauge."""
