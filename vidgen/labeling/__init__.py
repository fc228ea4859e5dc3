"""Conditions from a user's own video: label maps from a few painted frames, instances, and drawings of poses and faces."""
