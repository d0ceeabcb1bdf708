"""What the text encoder of the pocket pipeline learns first: to gather each phrase at the sign that ends it.

The cross-attention of a U-Net finds parts if there is one token a part which says everything of it ('red left eye').
Stable Diffusion's text encoder has such tokens because CLIP read four hundred million captions. A small one gets there
by a task on captions alone: at the comma, the 'with' or the end that closes a phrase, say the sum of the phrase's
words, each of which has a fixed random vector; everywhere else say 'nothing'. Attention must then look back as far as
the phrase goes and no further, which a causal transformer of three layers learns in a few hundred steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

SEPARATORS = (",", "with")
FILLERS = ("a", "an", "the", "of", "and", "on")


class Phrases:
    """The vectors that a text encoder of one vocabulary is to give.

    Args:
        tokenizer: Whose tokens are words.
        width: D, length of a vector.
        seed: Decides the words' vectors; training that goes on from a model must not change it.
    """

    def __init__(self, tokenizer: CLIPTokenizer, width: int, seed: int = 0):
        known = tokenizer.get_vocab()
        find = lambda words: [known[f"{word}</w>"] for word in words if f"{word}</w>" in known]  # noqa: E731
        ends = [*find(SEPARATORS), tokenizer.eos_token_id]
        random = torch.Generator().manual_seed(seed)
        self.words = torch.randn(len(known), width, generator=random)
        self.words[[*ends, *find(FILLERS), tokenizer.bos_token_id]] = 0
        self.nothing = F.layer_norm(torch.randn(width, generator=random), (width,))
        self.ends = torch.zeros(len(known), dtype=torch.bool)
        self.ends[ends] = True

    def targets(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be said at each token.

        Args:
            tokens: int64 ``(B, L)``.

        Returns:
            float32 ``(B, L, D)`` of mean 0 and deviation 1 along D, and bool ``(B, L)``: where a phrase ends.
        """
        vectors, ends = self.words[tokens], self.ends[tokens]
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        # The end of the phrase before, or the beginning of the text.
        before = torch.where(ends, places, 0).cummax(1).values.roll(1, 1)
        before[:, 0] = 0
        sums = vectors.cumsum(1)
        phrase = sums - sums.gather(1, before[..., None].expand_as(sums))
        # Two ends in a row, as in the padding, have no words between them.
        counts = (vectors != 0).any(-1).long().cumsum(1)
        ends = ends & (counts > counts.gather(1, before))
        return torch.where(ends[..., None], F.layer_norm(phrase, phrase.shape[-1:]), self.nothing), ends

    def loss(self, said: Tensor, tokens: Tensor) -> Tensor:
        """Mean squared error of ``(B, L, D)`` at the ends of phrases, and of that elsewhere, added.

        Args:
            said: The text encoder's last hidden state, on any device.
            tokens: int64 ``(B, L)`` on the CPU.
        """
        targets, ends = self.targets(tokens)
        errors = (said - targets.to(said)).square().mean(-1)
        ends = ends.to(said.device)
        # Pictures without captions have no phrases.
        return errors[ends].sum() / ends.sum().clamp(min=1) + errors[~ends].mean()
