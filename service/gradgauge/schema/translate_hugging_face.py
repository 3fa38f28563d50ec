"""A Hugging Face `config.json` as a spec: BERT, GPT-2, Llama, Mistral, Qwen, ViT, T5.

Defaults are those of the libraries' configuration classes. Text models are read at `TOKENS` tokens,
or as many as they have positions; their parameters do not depend on it.
"""

from collections.abc import Callable

from gradgauge.errors import InvalidSpec
from gradgauge.schema.hugging_face_config import Config, Json
from gradgauge.schema.hugging_face_others import t5, vit
from gradgauge.schema.hugging_face_text import bert, gpt2, llama
from gradgauge.schema.strict import nearest


def translate(config: Json) -> Json:
    """The spec of the network that transformers builds from `config`.

    Its head is that of `architectures`, the bare model without it.

    Raises:
        InvalidSpec: another family, a head that is not known, or a field that is missing.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise InvalidSpec(
            "unknown_model_type",
            f"no translation of a Hugging Face model of type {str(family)[:60]!r}",
            where="model_type",
            hint=f"{nearest(str(family)[:60], FAMILIES)}; or export the model to ONNX",
        )
    given = Config(config)
    spec = FAMILIES[family](given)
    return {"gradgauge": 1, "name": given.text("name_or_path", "_name_or_path") or family} | spec


FAMILIES: dict[str, Callable[[Config], Json]] = {
    "bert": bert,
    "gpt2": gpt2,
    "llama": llama,
    "mistral": llama,
    "qwen2": lambda given: llama(given, biased=True),
    "qwen3": lambda given: llama(given, normed=True),
    "vit": vit,
    "t5": t5,
}
