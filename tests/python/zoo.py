# One small model per op family of the exporter (attention, recurrence, resizing, indexing, writes
# to slices), and the larger networks of torchvision with seeded weights. test_zoo.py exports each
# of them scripted and traced.
import math

import torch
import torch.nn.functional as F
import torchvision
from torch import nn


def block(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Transposed convolutions and skip connections."""

    def __init__(self):
        super().__init__()
        self.down = block(3, 8)
        self.bottom = block(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, image):
        skip = self.down(image)
        deep = self.up(self.bottom(F.max_pool2d(skip, 2)))
        return torch.sigmoid(self.out(torch.cat([deep, skip], dim=1)))


class Resizing(nn.Module):
    """Every resize mode, with scale factors and with sizes; group and instance normalisation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.group = nn.GroupNorm(3, 6)
        self.instance = nn.InstanceNorm2d(6, affine=True)
        self.slope = nn.PReLU(6)
        self.twice = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)

    def forward(self, image):
        small = F.avg_pool2d(image, 2)
        y = self.slope(self.group(self.conv(small)))
        y = self.instance(self.twice(y))
        y = F.pad(y, [2, 1, 1, 2], mode="reflect")
        y = F.interpolate(y, size=[image.shape[2], image.shape[3]], mode="nearest")
        corners = F.interpolate(small, scale_factor=1.5, mode="bilinear", align_corners=True)
        return F.leaky_relu(y, 0.1), corners


class Interpolate(nn.Module):
    """Scripted, each call holds every mode's branch: align_corners, size and scale factor are None
    or not. Sizes read from another tensor keep the branches until the shapes are known."""

    def forward(self, image):
        row = image[:, :, 0]
        height, width = image.shape[2], image.shape[3]
        return (
            F.interpolate(image, size=[height * 2, width + 1], mode="nearest"),
            F.interpolate(image, scale_factor=1.5, mode="nearest-exact"),
            F.interpolate(row, size=[width + 3], mode="linear"),
            F.interpolate(row, scale_factor=2.0, mode="linear", align_corners=True),
            F.interpolate(image, size=9, mode="bilinear"),
            F.interpolate(image, size=[height * 2, width + 1], mode="bilinear", align_corners=True),
            F.interpolate(image, scale_factor=1.5, mode="bilinear"),
            F.interpolate(image, size=[height + 2, 7], mode="bicubic"),
            F.interpolate(image, scale_factor=2.0, mode="bicubic", align_corners=True),
            F.interpolate(image, size=[height // 2, width // 2], mode="area"),
        )


class BatchStatistics(nn.Module):
    """Normalisation by the statistics of the input, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.images = nn.BatchNorm2d(3, track_running_stats=False)
        self.rows = nn.BatchNorm1d(24, affine=False, track_running_stats=False)
        self.instance = nn.InstanceNorm2d(3, affine=True)

    def forward(self, image):
        return (
            self.images(image),
            self.rows(image.flatten(2).transpose(0, 2).flatten(1)),
            self.instance(image),
        )


class Truths(nn.Module):
    """any and all, and coordinates of what is true."""

    def forward(self, x):
        high = x > 0.5
        return (
            high.any(),
            high.any(1, keepdim=True),
            high.all(dim=(0, 1)),
            torch.all(x, 0),
            high.any(1).nonzero().squeeze(1),
        )


class Lstm(nn.Module):
    """Two layers in both directions, batch first."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(40, 12)
        self.lstm = nn.LSTM(12, 20, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(40, 5)

    def forward(self, ids):
        states, _ = self.lstm(self.words(ids))
        return F.log_softmax(self.out(states[:, -1]), dim=-1)


class Gru(nn.Module):
    """One layer with a given initial state, which is an output too."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(6, 10)
        self.out = nn.Linear(10, 4)

    def forward(self, x, state):
        y, last = self.gru(x, state)
        return self.out(y), last


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids):
        return self.layers(self.words(ids) * math.sqrt(16.0))


class Bert(nn.Module):
    """Attention with a float mask made from a 0/1 mask, positions, a pooled output."""

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.heads = heads
        self.words = nn.Embedding(50, width)
        self.places = nn.Embedding(32, width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.merge = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Linear(width, width)
        self.register_buffer("position", torch.arange(32).unsqueeze(0))

    def split(self, x):
        return x.view(x.size(0), x.size(1), self.heads, -1).transpose(1, 2)

    def forward(self, ids, mask):
        batch, length = ids.shape
        x = self.words(ids) + self.places(self.position[:, :length])
        masked = (1.0 - mask[:, None, None, :].to(torch.float32)) * -1e9
        y = F.scaled_dot_product_attention(
            self.split(self.query(x)),
            self.split(self.key(x)),
            self.split(self.value(x)),
            attn_mask=masked,
        )
        y = y.transpose(1, 2).contiguous().view(batch, length, -1)
        x = self.norm(x + self.merge(y))
        x = x + F.gelu(self.mlp(x), approximate="tanh")
        return x, x[:, 0].tanh()


class Attention(nn.Module):
    """nn.MultiheadAttention with its weights as an output."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        y, weights = self.attention(x, x, x)
        return y, weights


class Einsum(nn.Module):
    def forward(self, query, key, value):
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
        return torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), value)


class FixedLoop(nn.Module):
    """Loops of known length, a list, and a write to a column."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x):
        results = []
        for layer in self.layers:
            results.append(torch.relu(layer(x)))
        for step in range(4):
            x = x + step
        x[:, 0] = 0
        return torch.stack(results + [x], 0).mean(0)


class Detection(nn.Module):
    """The indexing at the end of a detector."""

    def forward(self, boxes, scores):
        best, index = torch.topk(scores, 5)
        picked = boxes[index]
        x = picked[:, 0::2].clamp(min=0, max=10.0)
        y = picked[:, 1::2].clamp(0, 10.0)
        clipped = torch.stack([x, y], -1).reshape(-1, 4)
        kept = torch.where(best > 0.5)[0]
        return (
            clipped[kept],
            best.masked_fill(best < 0.5, 0.0),
            torch.cumsum(best, 0),
            best.argmax(),
            torch.full_like(best, 3),
            torch.arange(best.size(0)),
        )


class DataControl(nn.Module):
    """Branches on the data: ONNX files of this exporter hold no such branch."""

    def forward(self, x):
        if bool(x.sum() > 0):
            x = x * 2
        else:
            x = -x
        return x


class Output(nn.Module):
    """The "out" of a segmentation model, for tracing."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model(image)["out"]


def image(side=64):
    return lambda: (torch.randn(1, 3, side, side),)


def vision(name, **keywords):
    return lambda: getattr(torchvision.models, name)(weights=None, **keywords)


def segmentation(name):
    return lambda: getattr(torchvision.models.segmentation, name)(
        weights=None, weights_backbone=None
    )


def ids():
    return (torch.randint(0, 40, (2, 9)),)


# name: (model, its inputs)
SMALL = {
    "unet": (UNet, image()),
    "resizing": (Resizing, image(32)),
    "interpolate": (Interpolate, image(8)),
    "batch_statistics": (BatchStatistics, lambda: (torch.randn(8, 3, 4, 4),)),
    "truths": (Truths, lambda: (torch.rand(5, 2),)),
    "lstm": (Lstm, ids),
    "gru": (Gru, lambda: (torch.randn(5, 2, 6), torch.randn(1, 2, 10))),
    "encoder": (Encoder, ids),
    "bert": (Bert, lambda: (*ids(), (torch.arange(18).reshape(2, 9) % 5 != 0).long())),
    "attention": (Attention, lambda: (torch.randn(2, 6, 16),)),
    "einsum": (Einsum, lambda: tuple(torch.randn(3, 1, 2, 5, 8))),
    "fixed_loop": (FixedLoop, lambda: (torch.randn(2, 4),)),
    "detection": (Detection, lambda: (torch.rand(20, 4) * 12, torch.rand(20))),
}
LARGE = {
    "mobilenet_v3_small": (vision("mobilenet_v3_small"), image(224)),
    "efficientnet_b0": (vision("efficientnet_b0"), image(224)),
    "vit_b_16": (vision("vit_b_16"), image(224)),
    "swin_t": (vision("swin_t"), image(224)),
    "convnext_tiny": (vision("convnext_tiny"), image(224)),
    "densenet121": (vision("densenet121"), image(224)),
    "inception_v3": (vision("inception_v3", init_weights=False), image(299)),
    "shufflenet_v2_x1_0": (vision("shufflenet_v2_x1_0"), image(224)),
    "lraspp": (segmentation("lraspp_mobilenet_v3_large"), image(224)),
    "deeplabv3": (segmentation("deeplabv3_mobilenet_v3_large"), image(224)),
}
DICTS = ("lraspp", "deeplabv3")


def make(name):
    """The model in eval mode and its example inputs, always the same."""
    torch.manual_seed(0)
    model, inputs = {**SMALL, **LARGE}[name]
    return model().eval(), inputs()


def other_inputs(name):
    """Inputs of the same shapes with other values."""
    torch.manual_seed(1)
    return {**SMALL, **LARGE}[name][1]()


def tensors(result):
    """The tensors of a forward's result in order; None is left out."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    return [one for part in result if part is not None for one in tensors(part)]
