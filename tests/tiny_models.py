"""Models of transformers that are random, small and saved to a folder, as they would be downloaded."""

from __future__ import annotations

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from features.torchvision_ops import declare_operators

declare_operators()

import transformers  # noqa: E402

SIDE, PATCH, LONGEST = 32, 8, 16

_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_TEXT, "image_size": SIDE, "patch_size": PATCH}
WORDS = "a red boat at sea dog cat photo of the green blue thing picture two".split()  # noqa: SIM905


def word_tokenizer(**special):
    """Splits at spaces and signs; what it does not know is <unk>."""
    vocabulary = {word: id for id, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", ",", ".", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", vocabulary["</s>"])])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **special}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def clip_tokenizer():
    characters = [chr(code) for code in range(33, 127)]
    names = [*characters, *(f"{each}</w>" for each in characters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={name: id for id, name in enumerate(names)}, merges=[])


def save_clip(folder, **saving):
    tokenizer = clip_tokenizer()
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": LONGEST, **special}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24, logit_scale_init_value=2.0)
    )
    pictures = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return _save(folder, model, pictures, tokenizer, **saving)


def save_siglip(folder, **saving):
    tokenizer = word_tokenizer()
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": LONGEST}
    torch.manual_seed(1)
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=_VISION))
    pictures = transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _save(folder, model, pictures, tokenizer, **saving)


def save_siglip2(folder, **saving):
    """The kind that takes pictures of any shape."""
    tokenizer = word_tokenizer()
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": LONGEST}
    vision = {**_TEXT, "num_patches": 16, "patch_size": PATCH}
    torch.manual_seed(2)
    model = transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision))
    pictures = transformers.Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=16)
    return _save(folder, model, pictures, tokenizer, **saving)


def _save(folder, model, pictures, tokenizer, **saving):
    transformers.utils.logging.disable_progress_bar()
    model.eval().save_pretrained(folder, **saving)
    pictures.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def require_code(folder):
    """A folder as of a model that has its own code, of a kind that transformers does not have."""
    folder.mkdir()
    config = {"model_type": "moondream9", "auto_map": {"AutoConfig": "it.Config", "AutoModel": "it.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "it.py").write_text("raise SystemExit('it was run')\n")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def save_blip(folder):
    tokenizer = word_tokenizer(cls_token="<s>", sep_token="</s>")
    special = {"bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2, "pad_token_id": 0}
    text = {**_TEXT, "encoder_hidden_size": 32, "vocab_size": len(tokenizer), "max_position_embeddings": 64, **special}
    torch.manual_seed(3)
    config = transformers.BlipConfig(text_config=text, vision_config=_VISION)
    model = transformers.BlipForConditionalGeneration(config)
    pictures = transformers.BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _save_whole(folder, model, transformers.BlipProcessor(pictures, tokenizer))


def save_florence2(folder):
    tokenizer = word_tokenizer(extra_special_tokens={"image_token": "<image>"})
    bart = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    }
    four = {"num_heads": [2] * 4, "num_groups": [2] * 4, "depths": [1] * 4, "embed_dim": [16] * 4, "window_size": 4}
    torch.manual_seed(14)
    config = transformers.Florence2Config(
        text_config=bart,
        vision_config={**four, "projection_dim": 32},
        image_token_id=tokenizer.image_token_id,
        is_encoder_decoder=True,
    )
    model = transformers.Florence2ForConditionalGeneration(config)
    pictures = transformers.CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, do_center_crop=False, image_seq_length=5
    )
    return _save_whole(folder, model, transformers.Florence2Processor(pictures, tokenizer))


def save_llava(folder):
    """A model that is asked a question, as one talks."""
    tokenizer = word_tokenizer(extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    text = {**_TEXT, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(5)
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**text, max_position_embeddings=128),
        vision_config=transformers.CLIPVisionConfig(**_VISION),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    model = transformers.LlavaForConditionalGeneration(config)
    pictures = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    template = (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = transformers.LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return _save_whole(folder, model, processor)


def _save_whole(folder, model, processor):
    transformers.utils.logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
