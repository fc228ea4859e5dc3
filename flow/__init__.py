"""Optical flow: warping, files, classical and learned engines. Independent of vidgen.

Convention everywhere: flow [.., 2, H, W] in pixels at its own resolution, (dx, dy), pointing from the grid of the first image
into the second, so that `warp(second, flow)` looks like the first.
"""
