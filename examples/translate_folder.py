"""Translate every label video of a folder with a trained model.

python examples/translate_folder.py runs/street clips results
"""

from __future__ import annotations

import sys
from pathlib import Path

import vidgen


def main(model_path: str, folder: str, output: str) -> None:
    """Write one .mp4 into `output` for each .mkv in `folder`."""
    model = vidgen.load(model_path)
    Path(output).mkdir(parents=True, exist_ok=True)
    for video in sorted(Path(folder).glob("*.mkv")):
        target = Path(output) / f"{video.stem}.mp4"
        model.translate(str(video)).save(str(target), overwrite=True)
        print(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
