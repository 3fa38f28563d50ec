"""Other tools' descriptions of a network, as the spec they amount to."""

from typing import Any

from gradgauge.schema import translate_hugging_face, translate_keras


def translate(document: dict[str, Any]) -> dict[str, Any]:
    """The document as a spec: one by another tool translated, any other as it is.

    Raises:
        InvalidSpec: it is Keras's or Hugging Face's, and has no translation.
    """
    if "gradgauge" in document:
        return document
    if translate_keras.applies(document):
        return translate_keras.translate(document)
    if "model_type" in document:
        return translate_hugging_face.translate(document)
    return document
