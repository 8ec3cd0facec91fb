"""What the scripts share around the loop: options, loss, metrics, checkpoints, journal."""
