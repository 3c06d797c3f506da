"""Small models with random weights: of sentence-transformers, the mean of word vectors, and of speech."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def encoder_modules() -> Any:
    """The modules of sentence-transformers that models are made of."""
    try:
        return importlib.import_module("sentence_transformers.sentence_transformer.modules")
    except ImportError:  # before version 6
        return importlib.import_module("sentence_transformers.models")


def bag_of_words_model(
    folder: Path, words: Sequence[str], n_dimensions: int = 16, seed: int = 0
) -> tuple[Path, np.ndarray]:
    """Save the model; return its folder and the vectors (V, d) of the words."""
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    modules = encoder_modules()
    tokens = ["[UNK]", *words]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    vectors = np.random.default_rng(seed).normal(size=(len(tokens), n_dimensions)).astype(np.float32)
    model = SentenceTransformer(
        modules=[modules.StaticEmbedding(tokenizer, embedding_weights=vectors)], device="cpu"
    )
    model.save(str(folder))
    return folder, vectors[1:]


def speech_model(folder: Path, kind: str, norm: str = "layer", **options: object) -> Path:
    """Save a random speech model of 16 dimensions: wav2vec2, hubert, wavlm, wav2vec2-bert or whisper.

    ``norm="group"`` is the architecture of wav2vec2-base, which normalizes over time and knows no mask. A
    window of the Whisper model has one second.
    """
    import torch
    import transformers as hf

    layers = dict(num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, hidden_size=16)
    has_mask = norm == "layer"
    strided = dict(
        conv_dim=(8, 8), conv_kernel=(10, 8), conv_stride=(5, 4), num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, feat_extract_norm=norm,
        do_stable_layer_norm=has_mask, conv_bias=has_mask, **layers, **options,
    )  # fmt: skip
    torch.manual_seed(0)
    extractor: object = hf.Wav2Vec2FeatureExtractor(return_attention_mask=has_mask)
    if kind == "wav2vec2":
        model = hf.Wav2Vec2Model(hf.Wav2Vec2Config(**strided))
    elif kind == "hubert":
        model = hf.HubertModel(hf.HubertConfig(**strided))
    elif kind == "wavlm":
        model = hf.WavLMModel(hf.WavLMConfig(**strided))
    elif kind == "wav2vec2-bert":
        model = hf.Wav2Vec2BertModel(hf.Wav2Vec2BertConfig(feature_projection_input_dim=160, **layers))
        extractor = hf.SeamlessM4TFeatureExtractor()
    else:
        config = hf.WhisperConfig(
            d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=50,
            vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        model, extractor = hf.WhisperModel(config), hf.WhisperFeatureExtractor(chunk_length=1)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


def sonar_model(folder: Path) -> Path:
    """An M2M100 encoder with NLLB's tokenizer, in the files of the port: sentencepiece and settings."""
    import sentencepiece as spm
    import torch
    from transformers import M2M100Config
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as CODES

    text = ["a red dog runs over the green hill", "the cat sleeps", "where is my friend"] * 50
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "tiny"), vocab_size=60,
        model_type="bpe", character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    (folder / "tiny.vocab").unlink()
    (folder / "tiny.model").rename(folder / "sentencepiece.bpe.model")
    pieces = spm.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))

    def token(content: str) -> dict[str, Any]:
        flags = dict.fromkeys(["lstrip", "normalized", "rstrip", "single_word"], False)
        return {"content": content, "special": True, **flags}

    # fairseq puts one token more in front than sentencepiece, languages behind, the mask last.
    first = pieces.get_piece_size() + 1
    added = {i: t for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
    added |= {first + i: code for i, code in enumerate([*CODES, "<mask>"])}
    settings = {
        "tokenizer_class": "NllbTokenizer", "src_lang": "eng_Latn", "model_max_length": 512,
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
        "sep_token": "</s>", "cls_token": "<s>", "mask_token": "<mask>",
        "additional_special_tokens": CODES,
        "added_tokens_decoder": {str(i): token(content) for i, content in added.items()},
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(1)
    config = M2M100Config(
        vocab_size=first + len(CODES) + 1, d_model=16, encoder_layers=2, encoder_attention_heads=2,
        encoder_ffn_dim=32, max_position_embeddings=600, init_std=0.3,
    )  # fmt: skip
    M2M100Encoder(config).save_pretrained(folder)
    return folder
