"""Reading pictures, choosing clips, making tensors, and the data sets."""
