"""Images to batches: data sets, splits, the packed store, the order of samples, and the two loaders."""
