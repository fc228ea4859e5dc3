"""Model files and their versions, checkpoints, foreign state dicts, pretrained networks: all that reads weights from disk."""
