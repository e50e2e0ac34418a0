"""Small things that several rooms need: seeds, hashes of tensors."""
