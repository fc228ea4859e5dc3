"""Many clips: a list of them, a ledger of what became of each, and engines that work on them.

A batch keeps these promises: every clip is done exactly once or is listed with its reason; a bad clip never stops the others; what
a killed process was at is done again; and starting again continues. All state lies in the output folder: the outputs, which appear
whole by a rename, and the ledger beside them. Doing a clip twice is harmless, so an engine may lose any worker at any moment.
"""
