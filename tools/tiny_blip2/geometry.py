"""`qvft/tiny-blip2`: a BLIP-2 of a few million weights, of the standard transformers classes.

Its tokenizer is a byte-level BPE with OPT's special tokens at OPT's places, so that whatever holds
of BLIP-2-OPT (bos and eos both `</s>`, pad 1, newline one token, `<image>` last) holds here.
"""

import json
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    GPT2Tokenizer,
    OPTConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

IMAGE_SIZE_PX = 48
PATCH_SIZE_PX = 12
VOCABULARY_SIZE = 1200
QUERY_TOKENS = 12
WIDTH = 128
TEXT_POSITIONS = 384
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3, as in OPT
PAD_ID, EOS_ID = 1, 2
IMAGE_TOKEN = "<image>"
POSITION_SCALE = 0.3
INITIALIZER_RANGE = 0.05  # about 1 / sqrt(3 * WIDTH): 0.02 is meant for widths near 1,000


def tiny_config() -> Blip2Config:
    """Return the geometry: ViT 128 x 4 on 16 patches, Q-Former 128 x 3, OPT 128 x 3.

    Every `initializer_range` is `INITIALIZER_RANGE`; the 1e-10 that `Blip2VisionConfig` defaults to
    would make the image invisible to a freshly initialised model.
    """
    vision = Blip2VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIZE_PX,
        patch_size=PATCH_SIZE_PX,
        initializer_range=INITIALIZER_RANGE,
    )
    qformer = Blip2QFormerConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=TEXT_POSITIONS,
        initializer_range=INITIALIZER_RANGE,
        cross_attention_frequency=1,
        encoder_hidden_size=WIDTH,
    )
    text = OPTConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        ffn_dim=4 * WIDTH,
        num_attention_heads=4,
        max_position_embeddings=TEXT_POSITIONS,
        word_embed_proj_dim=WIDTH,
        dropout=0.0,
        init_std=INITIALIZER_RANGE,
        bos_token_id=EOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=QUERY_TOKENS,
        image_text_hidden_size=WIDTH,
        image_token_index=VOCABULARY_SIZE - 1,
        initializer_range=INITIALIZER_RANGE,
    )


def _waves(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of row and column, (side * side, width); lowest wavelength 2 pi patches.

    Source: Vaswani et al. 2017, section 3.5, for each axis in half of the width.
    """
    frequencies = 100.0 ** -torch.linspace(0.0, 1.0, width // 4 + 1)[:-1]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = torch.cat(
        [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)],
        dim=1,
    )
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def init_tiny(seed: int) -> Blip2ForConditionalGeneration:
    """Return the model with fresh fp32 weights; equal seeds give equal weights.

    Two parts differ from what transformers would give. The query tokens are drawn from a normal
    distribution: transformers leaves them at zero, where all queries are the same query. The
    position embeddings of the patches start as two-dimensional waves, so that neighbours are alike.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Blip2ForConditionalGeneration(tiny_config())
        torch.nn.init.normal_(model.query_tokens, std=INITIALIZER_RANGE)
        side = IMAGE_SIZE_PX // PATCH_SIZE_PX
        with torch.no_grad():
            positions = model.vision_model.embeddings.position_embedding
            positions[0, 1:] = POSITION_SCALE * _waves(side, WIDTH)
    return model


def tiny_tokenizer(texts: Iterable[str]) -> GPT2Tokenizer:
    """Return a byte-level BPE tokenizer trained on `texts`; equal texts give equal tokenizers.

    It has `VOCABULARY_SIZE` tokens, writes and reads back any text, and puts `</s>` in front as
    OPT's does. The embedded model's is trained on `tools.tiny_blip2.drawn.vocabulary_texts()`.

    Raises:
        ValueError: `texts` are too few or too alike to fill the vocabulary.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - 1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    size = bpe.get_vocab_size()
    if size != VOCABULARY_SIZE - 1:
        raise ValueError(
            f"the texts give {size} tokens; expected {VOCABULARY_SIZE - 1}; "
            "train on more varied text"
        )
    learnt = json.loads(bpe.to_str())["model"]
    tokenizer = GPT2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],  # type: ignore[misc]  # typed as text
        unk_token="<unk>",
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
        model_max_length=TEXT_POSITIONS,
    )
    # Added as Blip2Processor itself adds it: a tokenizer with an `image_token` attribute breaks it.
    tokenizer.add_tokens(
        [AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True
    )
    assert tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) == VOCABULARY_SIZE - 1
    return tokenizer


def tiny_processor(texts: Iterable[str]) -> Blip2Processor:
    """Return the processor: images to (3, 48, 48) normalised as BLIP-2's are, text by BPE.

    The image processor is the PIL one, which needs no torchvision. A saved folder loads with
    `AutoProcessor.from_pretrained`.

    Raises:
        ValueError: as `tiny_tokenizer`.
    """
    images = BlipImageProcessorPil(size={"height": IMAGE_SIZE_PX, "width": IMAGE_SIZE_PX})
    return Blip2Processor(images, tiny_tokenizer(texts), num_query_tokens=QUERY_TOKENS)
