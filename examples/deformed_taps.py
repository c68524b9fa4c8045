"""Draw where a deformable convolution samples: a kernel on a digit, and the same kernel moved by offsets.

The offsets are set by hand: they rotate and enlarge the kernel with the digit. Needs matplotlib (saccade[plot]).

python examples/deformed_taps.py [PICTURE.png]
"""

import math
import sys

import matplotlib

matplotlib.use("agg")
import torch
from matplotlib import pyplot as plt
from torch.nn import functional as F

from saccade.data import digits
from saccade.ops import deform_conv2d

upright = digits.load("uci", "test").images[2].float()[None, None] / 255
angle, scale, y, x = math.radians(30), 1.25, 11, 13

# The same digit, rotated and enlarged about the centre of the image.
theta = torch.tensor([[math.cos(angle), math.sin(angle), 0.0], [-math.sin(angle), math.cos(angle), 0.0]])[None] / scale
turned = F.grid_sample(upright, F.affine_grid(theta, [1, 1, 28, 28], align_corners=False), align_corners=False)

# The taps of a 3x3 kernel with dilation 3, (y, x) from its centre, and the offsets (dy, dx) that rotate and enlarge it.
taps = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)).float() * 3
turn = scale * torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
moved = taps @ turn.mT
offset = (moved - taps).reshape(1, 18, 1, 1).expand(1, 18, 28, 28)
middle = torch.tensor([13.5, 13.5])
place = (turn @ (torch.tensor([float(y), float(x)]) - middle) + middle).round()

# Nine kernels with a single 1 each return the samples themselves.
one_each = torch.eye(9).view(9, 1, 3, 3)

figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), layout="constrained")
for axis, image, centre, points, title in (
    (axes[0], upright, torch.tensor([float(y), float(x)]), taps, "the nine taps of a kernel\non a digit"),
    (axes[1], turned, place, taps, "the digit turned and enlarged:\nthe taps see something else"),
    (axes[2], turned, place, moved, "each tap moved by its offset:\nthey see what they saw"),
):
    axis.imshow(image[0, 0], cmap="gray_r", vmax=1.4)
    if points is moved:
        for (y0, x0), (dy, dx) in zip((centre + taps).tolist(), (moved - taps).tolist(), strict=True):
            if math.hypot(dy, dx) > 0.5:
                axis.annotate("", (x0 + dx, y0 + dy), (x0, y0), arrowprops={"arrowstyle": "->", "color": "tab:blue"})
        axis.plot(*(centre + taps).T.flip(0), "o", color="tab:blue", alpha=0.4, markersize=5)
    axis.plot(*(centre + points).T.flip(0), "o", color="tab:red", markersize=6)
    axis.set_title(title)
    axis.axis("off")
    move = offset if points is moved else torch.zeros_like(offset)
    row, column = centre.int().tolist()
    samples = deform_conv2d(image, move, one_each, padding=3, dilation=3)[0, :, row, column]
    inset = axis.inset_axes([0.76, 0.02, 0.24, 0.24])
    inset.imshow(samples.view(3, 3), cmap="gray_r", vmin=0, vmax=1.4)
    inset.set_xticks([])
    inset.set_yticks([])
    inset.set_title("samples", fontsize=9, pad=2)
    for side in inset.spines.values():
        side.set_color("tab:red")

picture = sys.argv[1] if len(sys.argv) > 1 else "deformed_taps.png"
figure.savefig(picture, dpi=110, bbox_inches="tight")
print(f"wrote {picture}")
