"""vidgen: translate segmentation, edge or pose videos into realistic ones, and measure how steady they are."""

__version__ = "0.1.0"
