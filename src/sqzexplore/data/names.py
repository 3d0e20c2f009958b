"""What a spec may call a data set, and the ways to vary its images."""

from __future__ import annotations

from typing import Literal

from ..errors import UserError, nearest, shown

#: `shift`: each image by up to 1/16 of its side a way, the gap filled with its mirror image.
#: `shift_flip`: by up to 1/8 (4 of 32 pixels, as is usual), and half of them mirrored left to
#: right, which suits photographs but makes other signs of some digits and letters.
#: `crop_flip`: a random part of the stored image, resized, and half of them mirrored; needs the
#: images as they are stored, so that they are read while training.
Augmentation = Literal["none", "shift", "shift_flip", "crop_flip"]
BUILT_IN = ("digits", "fashion")


def check_data_name(text: str) -> None:
    """Refuse what cannot name a data set, before anything is looked up.

    Raises:
        UserError: neither a built-in set, nor a path, nor a Hugging Face name.
    """
    if text in BUILT_IN or any(sign in text for sign in "/$~.\\"):
        return
    raise UserError(
        f"found {shown(text)}, expected {', '.join(BUILT_IN)}, a folder (with a '/' or as "
        f"'${{VARIABLE}}') or the 'owner/name' of a Hugging Face data set{nearest(text, BUILT_IN)}"
    )


def printable(name: str) -> str:
    """A class's name as tables and JSON can hold it: of bytes that are no UTF-8 their escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
