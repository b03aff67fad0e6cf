"""What a notebook shows of a result: a table and pictures as HTML that needs no network and no style sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from torch import Tensor

SIDE = 96  # CSS pixels of a picture's longer side


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A row of headings, then the cells; texts are escaped."""
    cells = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(cells)}</tbody></table>"


def pair(x: Tensor, x_adv: Tensor, caption: str) -> str:
    """An image (C, H, W) in [0, 1] above what an attack made of it, and a caption below both."""
    shown = f"{picture(x, f'clean, {caption}')}{picture(x_adv, f'adversarial, {caption}')}"
    style = f"margin:0;max-width:{SIDE}px;font-size:80%"
    return f'<figure style="{style}">{shown}<figcaption>{escape(caption)}</figcaption></figure>'


def row(figures: Iterable[str]) -> str:
    """Figures side by side."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(figures)}</div>'


def picture(x: Tensor, alt: str) -> str:
    """One image (C, H, W) in [0, 1] as an <img> that holds its pixels, as PNG in 8 bits."""
    from PIL import Image

    pixels = (x.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]).save(file, "PNG")
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = f'width="{max(1, round(width * scale))}" height="{max(1, round(height * scale))}"'
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<img src="{uri}" {size} style="display:block;image-rendering:pixelated" alt="{escape(alt)}">'
