"""What networks are given: motion and sound as normalised tensors."""
