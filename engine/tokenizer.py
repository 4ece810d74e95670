"""Text to token ids and back, both ways incremental; user text never becomes a control token.

Every vocabulary is BPE down to bytes, so a token is a run of bytes.
"""

from __future__ import annotations

import codecs
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from cachetools import LRUCache
from tokenizers import Tokenizer as Bpe

from engine.checkpoint.control import ControlTokens
from engine.checkpoint.json_file import one_line
from engine.checkpoint.vocabulary import read_vocabulary
from engine.errors import CheckpointError

_MAX_PIECE = 1_024  # characters; longer ones are not worth remembering, and take long enough to let other threads run

_LAST_WORD = re.compile(r"[^\S\n]*[^\s]+\Z|[^\S\n]+\Z|\n+\Z")
"""What stands for the last pre-token where a vocabulary has no pre-tokens: the last word with the blanks before it."""


class Vocabulary(Protocol):
    """What a tokenizer is made from: a checked file, whichever family of models it is of."""

    @property
    def control(self) -> Mapping[str, int]:
        """Texts and ids of the control tokens."""
        ...

    @property
    def seams(self) -> re.Pattern[str] | None:
        """Where a text may be cut into pieces that tokenise independently of each other; None if nowhere."""
        ...

    def without_control(self) -> Self:
        """The same for user text, in which nothing is a control token."""
        ...

    def for_library(self) -> str:
        """What the `tokenizers` library reads."""
        ...

    def control_tokens(self) -> ControlTokens:
        """The control tokens that mean something to us."""
        ...

    def normalised(self, text: str) -> str:
        """What is tokenised in place of `text`."""
        ...

    def token_bytes(self) -> list[bytes]:
        """What each id stands for; nothing for control tokens and for ids between."""
        ...


class Tokenizer:
    """One model's vocabulary. Safe to use from several threads."""

    def __init__(self, path: Path, vocabulary: Vocabulary | None = None) -> None:
        """`vocabulary`: what was read of `path`, where it is not of StarCoder's and SantaCoder's form."""
        file = vocabulary or read_vocabulary(path.parent, path.name)
        try:
            # Without control tokens, the encoder cannot make one of any text.
            self._bpe = Bpe.from_str(file.without_control().for_library())
            self._raw_bpe = Bpe.from_str(file.for_library())
        except Exception as error:
            raise CheckpointError(f"{path}: not a usable tokenizer ({one_line(error)})") from error
        self._control_ids = frozenset(file.control.values())
        self._control_texts = {token: text for text, token in file.control.items()}
        self.control = file.control_tokens()
        self._bytes = file.token_bytes()
        control = (len(text.encode("utf-8", "replace")) for text in file.control)
        self._longest = max(1, max(map(len, self._bytes), default=1), max(control, default=1))
        self._seams = file.seams
        self._normalised = file.normalised
        self._pieces: LRUCache[str, tuple[int, ...]] = LRUCache(16_384)
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Ids that stand for something."""
        return len(self._bytes)

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """Ids of user text, without control tokens. Pieces seen before cost a look-up.

        More than `most` of them, where the text has more, are not all: who asks learns that it does not fit, at the cost of
        what would have.
        """
        text = self._readable(text, most)
        if self._seams is None:
            return self._clean(_ids(self._bpe, text))
        # Each piece has a token at least. Only looking up is behind the lock: a long text keeps no other thread waiting.
        pieces = self._seams.split(text, 0 if most is None else max(0, most) + 2)
        with self._lock:
            known = list(map(self._pieces.get, pieces))
        ids: list[int] = []
        for piece, found in zip(pieces, known, strict=True):
            ids.extend(self._encoded(piece) if found is None else found)
            if most is not None and len(ids) > most:
                break
        return ids

    def encode_raw(self, text: str, most: int | None = None) -> list[int]:
        """Ids of text whose control tokens act as such: only for a caller who asked for it. `most`: see `encode`."""
        return _ids(self._raw_bpe, self._readable(text, most))

    def last_pre_token(self, text: str) -> str:
        """The piece of `text` that BPE sees last: what a longer text might have tokenised otherwise."""
        if self._bpe.pre_tokenizer is None:
            word = _LAST_WORD.search(text[-512:])
            return word[0] if word else ""
        last_piece = self._seams.split(text[-512:])[-1] if self._seams is not None else text[-512:]
        pieces = self._bpe.pre_tokenizer.pre_tokenize_str(_encodable(last_piece)) if last_piece else []
        if not pieces:
            return ""
        start, end = pieces[-1][1]
        return last_piece[start:end]

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; nothing for control tokens and for ids past the vocabulary."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    def label(self, token: int) -> str:
        """A name for any token: its text, or its bytes or id where it has none, as OpenAI and vLLM write them."""
        data = self.bytes_of(token)
        try:
            return data.decode() or f"token_id:{token}"
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def is_control(self, token: int) -> bool:
        """Whether the token is one of the tokenizer's added tokens."""
        return token in self._control_ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; broken UTF-8 becomes U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def tokens_along(self, held: bytes) -> list[int]:
        """Tokens that may stand where `held` is to be regrown: they start with it, or it starts with them."""
        order, texts = self._sorted
        found = order[bisect_left(texts, held) : bisect_left(texts, held + b"\xff" * 8)]
        for length in range(1, len(held)):
            at = bisect_left(texts, held[:length])
            while at < len(texts) and texts[at] == held[:length]:
                found.append(order[at])
                at += 1
        return found

    def may_continue(self, held: bytes) -> bool:
        """Whether some token reaches over the end of `held`, so that the text after it could tokenise otherwise."""
        _, texts = self._sorted
        for start in range(len(held)):
            tail = held[start:]
            at = bisect_left(texts, tail + b"\x00")
            if at < len(texts) and texts[at].startswith(tail):
                return True
        return False

    @cached_property
    def _sorted(self) -> tuple[list[int], list[bytes]]:
        order = sorted((i for i, text in enumerate(self._bytes) if text), key=self._bytes.__getitem__)
        return order, [self._bytes[i] for i in order]

    def _readable(self, text: str, most: int | None) -> str:
        """What is tokenised in place of `text`, or so much of it that it has more than `most` tokens whatever they are."""
        text = self._normalised(_encodable(text))
        return text if most is None else text[: max(0, most) * self._longest + 1]

    def _encoded(self, piece: str) -> Sequence[int]:
        """The ids of a piece that was not known a moment ago."""
        if len(piece) > _MAX_PIECE:
            return self._clean(_ids(self._bpe, piece))
        with self._lock:
            known = self._pieces.get(piece)
        if known is None:
            known = tuple(self._clean(_ids(self._bpe, piece)))
            with self._lock:
                self._pieces[piece] = known
        return known

    def _clean(self, ids: Sequence[int]) -> list[int]:
        # A vocabulary may hold a control token's text as an ordinary merge; then its letters are spelled out.
        if self._control_ids.isdisjoint(ids):
            return list(ids)
        spelled: list[int] = []
        for token in ids:
            if token in self._control_ids:
                for character in self._control_texts[token]:
                    spelled.extend(self._bpe.encode(character, add_special_tokens=False).ids)
            else:
                spelled.append(token)
        return spelled


class Detokenizer:
    """Token ids to text, as they come: a character is given out when its last byte has arrived."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that `token` completes."""
        return self.feed_bytes(self._tokenizer.bytes_of(token))

    def feed_bytes(self, data: bytes) -> str:
        """The same for part of a token."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What an unfinished character at the end becomes: U+FFFD, or nothing."""
        return self._decoder.decode(b"", final=True)


def _ids(bpe: Bpe, text: str) -> list[int]:
    if len(text) <= _MAX_PIECE:
        ids: list[int] = bpe.encode(text, add_special_tokens=False).ids
    else:  # the call for many texts lets other threads run meanwhile, the one for a single text does not
        (found,) = bpe.encode_batch_fast([text], add_special_tokens=False)
        ids = found.ids
    return ids


def _encodable(text: str) -> str:
    """The text with a question mark in place of each half surrogate pair, which has no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
