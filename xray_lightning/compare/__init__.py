"""Two runs, or two sweeps, and what differs between them: python -m xray_lightning.compare."""
