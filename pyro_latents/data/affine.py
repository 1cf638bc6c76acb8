r"""Affine maps of whole batches of images, for making data sets and batches.

A map moves the *content* of an image: the ink at :math:`p` goes to :math:`A p + t`. Points are in
pixels from the centre of the image, x to the right and y **up**, angles in radians and counter-
clockwise. The result at :math:`q` is read at :math:`A^{-1} (q - t)`, bilinearly, zeros outside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def affine_matrix(
    angle: Tensor, shear: Tensor | None = None, scale: Tensor | None = None
) -> Tensor:
    r"""The linear part of a map that rotates, then shears, then scales.

    .. math:: A = \mathrm{diag}(k_x, k_y) \begin{pmatrix} 1 & 0 \\ s & 1 \end{pmatrix}
        \begin{pmatrix} \cos a & -\sin a \\ \sin a & \cos a \end{pmatrix}

    Args:
        angle: a in radians, counter-clockwise, of shape `*leading`.
        shear: s, of the same shape: s times x is added to y. None for no shear.
        scale: k_x and k_y, of shape `*leading 2`. None for no scaling.

    Returns:
        The matrices, of shape `*leading 2 2`.

    Example:
        >>> affine_matrix(torch.tensor(0.0), scale=torch.tensor([2.0, 1.0]))
        tensor([[2., -0.],
                [0., 1.]])
    """
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))
    if shear is not None:
        above, below = matrix.unbind(-2)
        matrix = torch.stack([above, below + shear.unsqueeze(-1) * above], dim=-2)
    if scale is not None:
        matrix = scale.unsqueeze(-1) * matrix
    return matrix


def move(
    images: Tensor,
    matrix: Tensor,
    translation: Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Move the content of images by affine maps; leading dimensions broadcast.

    Args:
        images: In [0, 1], of shape `*leading channels height width`.
        matrix: Linear parts about the centre, of shape `*leading 2 2`.
        translation: In pixels, right and up, of shape `*leading 2`; None for none.
        size: Height and width of the result, with the same centre; None for those of the images.

    Returns:
        The moved images, of shape `*leading channels *size`.
    """
    height, width = size or images.shape[-2:]
    shift = matrix.new_zeros(2) if translation is None else translation
    leading = torch.broadcast_shapes(images.shape[:-3], matrix.shape[:-2], shift.shape[:-1])

    # Without `align_corners`, -1 and 1 are the outer edges of the image, so that a distance of u
    # pixels from the centre is 2 u / size; rows are counted downwards, hence the sign of y.
    units = matrix.new_tensor([[2 / images.shape[-1]], [-2 / images.shape[-2]]])
    back = units * _inverse(matrix)
    offset = -back @ shift.unsqueeze(-1)
    back = torch.cat([back.expand(*offset.shape[:-1], 2), offset], dim=-1)
    # One product with (x, y, 1) is several times faster than to scale and shift all points.
    points = F.pad(centred_grid(height, width, like=matrix), (0, 1), value=1.0)
    read_at = points @ back.transpose(-1, -2)

    moved = F.grid_sample(
        images.expand(*leading, *images.shape[-3:]).reshape(-1, *images.shape[-3:]),
        read_at.expand(*leading, -1, -1).reshape(-1, height, width, 2).to(images.dtype),
        align_corners=False,
    )
    # The four weights of a pixel may sum to a little more than one.
    return moved.clamp_(0, 1).reshape(*leading, images.shape[-3], height, width)


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate images about their centres; leading dimensions broadcast.

    Args:
        images: In [0, 1], of shape `*leading channels height width`.
        angle: In radians, counter-clockwise, of shape `*leading`.

    Returns:
        The rotated images; for `batch 1 channels height width` and an angle of shape
        `batch views`, they are `batch views channels height width`.
    """
    return move(images, affine_matrix(angle))


def centred_grid(height: int, width: int, *, like: Tensor) -> Tensor:
    """The pixel centres (x, y) from the middle of the image, of shape `height*width 2`."""
    x = torch.arange(width, dtype=like.dtype, device=like.device) - (width - 1) / 2
    y = (height - 1) / 2 - torch.arange(height, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)


def _inverse(matrix: Tensor) -> Tensor:
    """The inverses of 2x2 matrices, without the synchronisation of ``torch.linalg.inv``."""
    a, b, c, d = matrix.flatten(-2).unbind(-1)
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    return adjugate / (a * d - b * c)[..., None, None]
