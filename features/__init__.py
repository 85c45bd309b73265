"""Image files to vectors. Knows nothing of indexes.

``create_encoder`` is imported only when it is asked for, so that reading a store or a dataset does not load torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.encoders import Encoder, EncoderError, choose_encoder, create_encoder, register_encoder

__all__ = ["Encoder", "EncoderError", "choose_encoder", "create_encoder", "register_encoder"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from features import encoders

        return getattr(encoders, name)
    raise AttributeError(f"module 'features' has no attribute {name!r}")
