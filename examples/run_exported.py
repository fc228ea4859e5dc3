"""Run an exported model with onnxruntime and numpy alone: python run_exported.py model.onnx labels.npy frames.npy"""

import json
import sys

import numpy as np
import onnxruntime

graph, labels, out = sys.argv[1:]
session = onnxruntime.InferenceSession(graph)
card = json.loads(session.get_modelmeta().custom_metadata_map["vidgen"])
frames = []
maps = np.load(labels).astype(np.int64)  # [T,H,W], ids as in the card's label table; sides are multiples of the model's
sides = {"height": maps.shape[1], "width": maps.shape[2]}
assert not any(side % card["model"]["size_multiple"] for side in sides.values())


def zeros(port: dict) -> np.ndarray:
    """Zeros of an input's shape, in which a side may be written as "height/2"."""
    parts = [(*str(item).split("/"), "1")[:2] for item in port["shape"]]
    return np.zeros([sides.get(name, 0) // int(by) or int(name) for name, by in parts], port["dtype"])


inputs = {port["name"]: zeros(port) for port in card["inputs"] + card["noise"] + card["states"]}  # a video begins with zeros
for label_map in maps:
    inputs["labels"] = label_map[None]
    outputs = dict(zip([item.name for item in session.get_outputs()], session.run(None, inputs), strict=True))
    frames.append(np.rint((outputs["frame"][0].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8))
    inputs |= {port["name"]: outputs[f"next_{port['name']}"] for port in card["states"]}
np.save(out, np.stack(frames))
