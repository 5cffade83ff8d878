"""New tokens of a text encoder: their names, their vectors, and the checks that each class has its own."""

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.generate.latent_parts import Parts

TOKEN = re.compile("<[a-z0-9-]+>")
"""What a token is spelled like: its end can be told from the text around it, no token is the beginning of another one,
and it is a file's name."""


class Rows(nn.Module):
    """An embedding whose words stay as they are, with new rows for new tokens.

    Args:
        words: the embedding as it was.
        rows: vectors of the new tokens.
        first: number of the first new token.
    """

    def __init__(self, words: nn.Embedding, rows: Float[Tensor, "n D"], *, first: int) -> None:
        super().__init__()
        self.words, self.first = words, first
        self.rows = nn.Parameter(rows)

    @property
    def weight(self) -> Tensor:
        """That of the words, which says type and device."""
        return self.words.weight

    def forward(self, tokens: Int[Tensor, "..."]) -> Float[Tensor, "... D"]:
        """Return a vector per token."""
        is_new = tokens >= self.first
        old = self.words(tokens.masked_fill(is_new, 0))
        new = self.rows[(tokens - self.first).clamp(min=0)]
        return torch.where(is_new[..., None], new, old)


def token_of(name: str) -> str:
    """Return the token of a class; of a name without Latin letters and digits it is no good one.

    Example:
        >>> token_of("Pleural_Thickening")
        '<pleural-thickening>'
    """
    return f"<{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}>"


def check_spelling(table: Mapping[str, str]) -> None:
    """Refuse tokens that prompts, or files, could take for something else.

    Args:
        table: class -> token.

    Raises:
        ConfigError: naming the class and its token.
    """
    for name, token in table.items():
        if not TOKEN.fullmatch(token):
            plain = token_of(token)
            example = plain if TOKEN.fullmatch(plain) else "<rare>"
            setting = f'generator.table={{{json.dumps(name, ensure_ascii=False)}="{example}"}}'
            raise ConfigError(
                f"generator.table: the token of {name!r} is {token!r}; a token is small letters, digits and - "
                f"between angle brackets, such as {example}: --set '{setting}'"
            )


def pieces_of(token: str, *, vectors: int) -> list[str]:
    """Return a token's names, one per vector, as diffusers gives them.

    Example:
        >>> pieces_of("<df>", vectors=3)
        ['<df>', '<df>_1', '<df>_2']
    """
    return [token, *(f"{token}_{i}" for i in range(1, vectors))]


def spelled(prompt: str, table: Mapping[str, str], *, vectors: int) -> str:
    """Return a prompt with each token followed by its further vectors."""
    for token in table.values():
        prompt = prompt.replace(token, " ".join(pieces_of(token, vectors=vectors)))
    return prompt


def check_tokens(table: Mapping[str, str], prompts: Mapping[str, str], *, tokenizer: Any = None) -> None:
    """Check class by class that its prompt says its token, and that the tokenizer knows it.

    Args:
        table: class -> token.
        prompts: class -> prompt.
        tokenizer: left out: it is not asked.

    Raises:
        ConfigError: naming the class and its token.
    """
    known = set() if tokenizer is None else set(tokenizer.get_added_vocab())
    for name, token in table.items():
        if token not in prompts[name]:
            raise ConfigError(f"the prompt of {name!r} is {prompts[name]!r}, without its token {token}: name it there")
        if tokenizer is not None and token not in known:
            raise ConfigError(f"the tokenizer does not know {token}, the token of {name!r}: fit the token again")


def with_tokens(parts: Parts, table: Mapping[str, str], *, vectors: int, initial: str) -> Parts:
    """Return parts whose tokenizer and text encoder know new tokens; the text encoder is changed in place.

    Args:
        parts: of the model.
        table: class -> token.
        vectors: per token.
        initial: words that the vectors begin as; empty: the class's.

    Raises:
        ConfigError: if the tokenizer knows one of the tokens already, or none of the initial words.
    """
    tokenizer = copy.deepcopy(parts.tokenizer)
    first, names = len(tokenizer), [p for token in table.values() for p in pieces_of(token, vectors=vectors)]
    taken = sorted(set(names) & set(tokenizer.get_vocab()))
    if taken:
        raise ConfigError(f"the model's tokenizer knows {taken[0]} already: choose other tokens, generator.table")
    tokenizer.add_tokens(names)
    words = parts.text.get_input_embeddings()
    rows = []
    for name in table:
        said = initial or name.replace("_", " ")
        numbers = tokenizer(said, add_special_tokens=False).input_ids
        if not numbers:
            raise ConfigError(f"the model's tokenizer finds no words in {said!r}: set generator.initial")
        rows.append(words.weight.detach()[[numbers[i % len(numbers)] for i in range(vectors)]])
    parts.text.set_input_embeddings(Rows(words, torch.cat(rows).clone(), first=first))
    return replace(parts, tokenizer=tokenizer)


def embeddings_of(parts: Parts) -> dict[str, Float[Tensor, "v D"]]:
    """Return the vectors of every token that was learnt."""
    rows: Rows = parts.text.get_input_embeddings()
    numbers = sorted(
        (number, name) for name, number in parts.tokenizer.get_added_vocab().items() if number >= rows.first
    )
    found: dict[str, list[Tensor]] = {}
    for number, name in numbers:
        found.setdefault(name.rpartition(">")[0] + ">", []).append(rows.rows.detach()[number - rows.first])
    return {token: torch.stack(vectors) for token, vectors in found.items()}


def file_of(token: str) -> str:
    """Return the name of a token's file."""
    return f"{token.strip('<>')}.safetensors"
