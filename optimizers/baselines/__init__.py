"""Baselines that need no training: one file each."""
