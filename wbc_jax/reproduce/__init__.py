"""Every table and figure of the three papers as a command: what each needs, ours beside the published numbers."""
