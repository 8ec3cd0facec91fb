"""Pictures, samples, their order and their augmentation; knows nothing of the network."""
