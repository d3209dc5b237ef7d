"""Trained networks for other programs: StableHLO, safetensors, torch state dicts, each checked when written."""
