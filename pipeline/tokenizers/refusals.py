"""What every tokenizer refuses alike: text that is none, and a library that panics on a document."""

from typing import NoReturn

from pipeline.errors import InvalidInput, is_panic


def require_utf8(text: str) -> bytes:
    """Return text as UTF-8, or refuse what that cannot hold.

    Raises:
        InvalidInput: It holds a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"text holds a lone surrogate at character {error.start}") from error


def raise_for_panic(error: BaseException, *, encoding: str) -> NoReturn:
    """Turn a panic in Rust, which derives from `BaseException` alone, into an error of the text; others go on.

    Raises:
        InvalidInput: It was a panic.
    """
    if is_panic(error):
        raise InvalidInput(f"the tokenizer of {encoding} panicked on this text") from error
    raise error
