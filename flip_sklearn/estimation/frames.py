"""Results as pandas tables. pandas is imported only here, and only when a table is asked for."""

from __future__ import annotations

from typing import Any

from flip_sklearn.parameters import install_command


def data_frame(columns: dict[str, Any]) -> Any:
    """A pandas DataFrame of columns of one length."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(f"to_frame() needs pandas: {install_command('pandas')}") from error
    return pd.DataFrame(columns)
