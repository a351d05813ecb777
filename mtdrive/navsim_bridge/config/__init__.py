"""Hydra configuration that navsim's scripts find through `hydra_plugins/mtdrive_navsim`."""
