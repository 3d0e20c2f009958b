"""The data set that a name means."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import UserError
from ..files import home
from .names import check_data_name
from .source import Source

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def open_data(text: str) -> Source:
    """The data set that `text` names.

    Args:
        text: `digits` or `fashion`; or a folder of image parquet files, IDX files or class
            folders, in which `${NAME}` stands for an environment variable and `~` for the home
            folder; or the `owner/name` of a Hugging Face data set.

    Raises:
        UserError: there is no such set, or it is not usable; the message names the file.
    """
    check_data_name(text)
    if text == "digits":
        from .digits import digits_source

        return digits_source()
    if text == "fashion":
        from .fashion import fashion_source

        return fashion_source()
    path = home(_expand(text))
    if path.is_dir():
        return _open_folder(path)
    if path.exists():
        raise UserError(f"{path}: found a file, expected the folder that holds the images")
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", text) and text[0] != ".":
        from .hub import open_hub

        return open_hub(text)
    raise UserError(f"{path}: no such folder, expected one with images")


def _expand(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not os.environ.get(name):
            raise UserError(
                f"{text}: the environment variable {name} is not set; "
                f"set it to the folder of the images: export {name}=..."
            )
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def _open_folder(path: Path) -> Source:
    from .folders import open_image_folder
    from .idx import is_idx, open_idx
    from .parquet import open_parquet, parquet_files

    if parquet_files(path):
        return open_parquet(path)
    if any(map(is_idx, path.iterdir())):
        return open_idx(path)
    return open_image_folder(path)
