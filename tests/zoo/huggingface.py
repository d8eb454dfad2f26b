"""Hugging Face networks with small random configurations; nothing is downloaded. They need the extra `hf`."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.registry import Shape, member

TOKENS, WORDS, MORE = 19, (2, 6), (2, 9)


def huggingface(name: str, kind: str, shape: Shape = WORDS, tokens: int = TOKENS, other: Shape | None = MORE, **options: Any) -> None:
    """Add the network of transformers' class `kind` under `name`."""

    def make() -> nn.Module:
        import transformers

        made = getattr(transformers, kind)
        config = made.config_class(**options)
        config.use_cache = False  # what is compared is the result, and a cache is none
        return made(config)

    member(shape, tokens, other=other, name=name, packages=("transformers",))(make)


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}

huggingface("hf_gpt2", "GPT2LMHeadModel", vocab_size=TOKENS, n_embd=16, n_layer=2, n_head=2, n_positions=12)
huggingface("hf_llama", "LlamaForCausalLM", vocab_size=TOKENS, num_key_value_heads=2, max_position_embeddings=16, **SMALL)
huggingface("hf_bert", "BertForSequenceClassification", vocab_size=TOKENS, max_position_embeddings=16, num_labels=3, **SMALL)
huggingface("hf_opt", "OPTForCausalLM", vocab_size=TOKENS, hidden_size=16, word_embed_proj_dim=16, num_hidden_layers=2, ffn_dim=20,
            num_attention_heads=4, max_position_embeddings=16)  # fmt: skip
huggingface("hf_vit", "ViTForImageClassification", (2, 3, 12, 12), 0, None, image_size=12, patch_size=4, num_labels=3, **SMALL)


class Translation(nn.Module):
    """T5 with the tokens that it reads also as those that it has written."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import T5Config, T5ForConditionalGeneration

        config = T5Config(vocab_size=TOKENS, d_model=16, d_kv=4, d_ff=20, num_layers=2, num_heads=4, decoder_start_token_id=0)
        config.use_cache = False
        self.t5 = T5ForConditionalGeneration(config)

    def forward(self, tokens):
        return self.t5(input_ids=tokens, decoder_input_ids=tokens.flip(1)).logits


member(WORDS, TOKENS, other=MORE, name="hf_t5", packages=("transformers",))(Translation)
