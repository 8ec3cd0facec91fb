"""What export.py does: the formats, and the network that is written."""
