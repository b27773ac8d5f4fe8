"""The local page to try a checkpoint on."""
