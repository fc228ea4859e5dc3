"""The first convolution of label maps without making them one-hot.

A convolution over one-hot channels adds, for each pixel of its window, one column of its weights. Where the whole window has one
class, as in most of a street, the sum is the same for every pixel of that class; elsewhere it is a sum of table rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def is_faster(conv: nn.Module, labels: Tensor) -> bool:
    """Whether `convolve_labels` can be used instead of `conv` and pays off: on a processor without AMX, with no gradient wanted."""
    usable = isinstance(conv, nn.Conv2d) and conv.padding_mode == "reflect" and conv.stride == (1, 1)
    if not usable or torch.is_grad_enabled() or torch.compiler.is_exporting() or labels.device.type != "cpu":
        return False
    return conv.weight.dtype != torch.bfloat16 or not torch.cpu._is_amx_tile_supported()


def convolve_labels(
    conv: nn.Conv2d,
    labels: Tensor,
    num_labels: int,
    *,
    before_edges: Tensor | None = None,
    edges: Tensor | None = None,
    after_edges: Tensor | None = None,
) -> Tensor:
    """What `conv` (reflection-padded, stride 1, an odd window) makes of one-hot labels and these further channels, in this order.

    Args:
        labels: int64 [N,H,W], below num_labels; -1 is no class.
        before_edges, after_edges: [N,C,H,W], convolved as they are.
        edges: [N,1,H,W] of zeros and ones.

    Returns:
        [N,out_channels,H,W] of the weights' precision, channels last; sums are taken in float32.
    """
    weight = conv.weight.float()
    first = num_labels + (0 if before_edges is None else before_edges.shape[1])
    after = first + (0 if edges is None else 1)
    taps = weight[:, :num_labels]
    taps = torch.cat([taps, taps.new_zeros(taps[:, :1].shape)], dim=1)
    codes = torch.where(labels < 0, num_labels, labels)
    if edges is not None:
        codes = codes + (num_labels + 1) * edges[:, 0].long()
        taps = torch.cat([taps, taps + weight[:, first, None]], dim=1)
    bias = None if conv.bias is None else conv.bias.float()
    images = [_sum_taps(taps, bias, image, conv.weight.dtype) for image in codes]
    result = (images[0].unsqueeze(0) if len(images) == 1 else torch.stack(images)).permute(0, 3, 1, 2)
    dense = [(before_edges, conv.weight[:, num_labels:first]), (after_edges, conv.weight[:, after:])]
    for channels, part in dense:
        if channels is not None:
            padded = F.pad(channels.to(part.dtype), (conv.kernel_size[0] // 2,) * 4, mode="reflect")
            result = result + F.conv2d(padded.contiguous(memory_format=torch.channels_last), part)
    return result


def _sum_taps(taps: Tensor, bias: Tensor | None, codes: Tensor, dtype: torch.dtype) -> Tensor:
    """[H,W,out] of the sums of taps [out,codes,K,K] over the window of every pixel of `codes` [H,W]."""
    channels, num_codes, side, _ = taps.shape
    margin = (side // 2,) * 4
    padded = F.pad(codes[None, None].float(), margin, mode="reflect")
    varies = (F.max_pool2d(padded, side, 1) != -F.max_pool2d(-padded, side, 1))[0, 0]
    uniform = taps.sum((2, 3)).t() if bias is None else taps.sum((2, 3)).t() + bias
    result = F.embedding(codes, uniform.to(dtype))
    rows, columns = varies.nonzero().unbind(1)
    width = padded.shape[-1]
    window = (torch.arange(side)[:, None] * width + torch.arange(side)).flatten()
    near = padded.flatten().to(torch.int32)[(rows * width + columns)[:, None] + window]
    entries = near * side**2 + torch.arange(side**2, dtype=torch.int32)
    table = taps.permute(1, 2, 3, 0).reshape(num_codes * side**2, channels).contiguous()  # strided tables take a slow path
    sums = F.embedding_bag(entries, table, mode="sum")
    result[rows, columns] = (sums if bias is None else sums + bias).to(dtype)
    return result
