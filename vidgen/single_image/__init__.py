"""What one picture or one short clip is enough for, by its own patches or by a model trained on it."""
