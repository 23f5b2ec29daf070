"""The loop that `training.py` compares with: what one writes by hand with timm and torchvision, and nothing of ours.

Same network, images, changes to images, optimizer, schedule, mixing and average as ``vit-edge train``; prints the
images per second of each epoch as a JSON list.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2


def main() -> None:
    """Train, and print the pace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder per class")
    parser.add_argument("--from", dest="start", type=Path, help="fine-tune this ViT-Tiny at 224 pixels")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    side = 32 if options.start is None else 224
    images = ImageFolder(options.data, changes(side))
    classes = len(images.classes)
    loader: DataLoader[Any] = DataLoader(
        images, options.batch_size, shuffle=True, num_workers=2, persistent_workers=True
    )
    groups: Any
    if options.start is None:
        rate, decay = 1e-3, 0.999
        model: nn.Module = VisionTransformer(
            img_size=side,
            patch_size=4,
            embed_dim=128,
            depth=6,
            num_heads=4,
            mlp_ratio=2,
            num_classes=classes,
            drop_path_rate=0.05,
        )
        groups = param_groups_weight_decay(model, weight_decay=0.05)
        mix = Mixup(mixup_alpha=0.2, mode="pair", label_smoothing=0.1, num_classes=classes)
        loss_of: nn.Module = SoftTargetCrossEntropy()
    else:
        rate, decay = 2e-4, 0.99
        model = timm.create_model(
            "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            checkpoint_path=str(options.start),
            drop_path_rate=0.05,
        )
        model.reset_classifier(classes)  # type: ignore[operator]
        groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75)
        for group in groups:
            group["lr"] = rate * group.pop("lr_scale")
        mix = None
        loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.AdamW(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * len(loader))
    average = ModelEmaV3(model, decay=decay)
    paces = []
    model.train()
    for _ in range(options.epochs):
        started = time.perf_counter()
        for pixels, targets in loader:
            if mix is not None:
                # timm's pairs want an even number.
                even = len(pixels) // 2 * 2
                pixels, targets = mix(pixels[:even], targets[:even])
            with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
                loss = loss_of(model(pixels), targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average.update(model)
            loss.item()
        paces.append(len(images) / (time.perf_counter() - started))
    print(json.dumps(paces))


def changes(side: int) -> v2.Compose:
    """Give the changes to an image, down to what the network takes."""
    return v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(side, scale=(0.6, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.TrivialAugmentWide(fill=[128, 128, 128]),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )


if __name__ == "__main__":
    main()
