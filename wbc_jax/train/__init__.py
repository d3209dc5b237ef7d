"""Losses, optimisers, augmentation, pure step factories, and the loop that drives them."""
