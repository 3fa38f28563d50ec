"""Analysis options: what a caller may ask of an analysis, all of it optional."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from gradgauge.errors import InvalidOptions
from gradgauge.schema.strict import Strict, fault, refused

Engine = Literal["analytic", "sampled"]
Dtype = Literal["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"]


def _as_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_set(value: Any) -> Any:
    """In one order and each once, so that equal requests have equal digests."""
    words = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
    return tuple(sorted(set(value))) if words else value


class InputOptions(Strict):
    """How one graph input is fed; what is left out is taken from the graph or the spec.

    `shape` gives every axis a size (the batch axis, where the graph has one, may be left out);
    only dynamic axes may differ from the graph's own. `scale` is the standard deviation of normal
    and uniform inputs and has no meaning for integers.
    """

    distribution: Literal["normal", "uniform", "integers"] | None = None
    shape: (
        Annotated[
            tuple[Annotated[int, Field(ge=1, lt=1 << 31)], ...],
            Field(max_length=16),
            BeforeValidator(_as_list, json_schema_input_type=list[int]),
        ]
        | None
    ) = None
    scale: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _scale_of_numbers(self) -> Self:
        if self.distribution == "integers" and self.scale is not None:
            raise refused("integers have no scale", field="scale", hint="leave it out")
        return self


class AnalysisOptions(Strict):
    """The options of one analysis; building one from wrong values raises InvalidOptions."""

    profile: Literal["quick", "standard", "deep"] = Field(
        default="standard",
        description="How much is sampled; standard and deep also probe training.",
    )
    engines: Annotated[
        tuple[Engine, ...],
        Field(min_length=1),
        BeforeValidator(_as_set, json_schema_input_type=list[Engine]),
    ] = Field(
        default=("analytic", "sampled"),
        description="Coverage counts a parameter that all of these have covered.",
    )
    inputs: dict[str, InputOptions] = Field(
        default={}, description="By graph input; inputs not named here are fed as the graph says."
    )
    data: Path | None = Field(
        default=None,
        strict=False,
        description="An .npz file, by its path, or in a service by the id that `POST /v1/data` "
        "gave it: arrays named as graph inputs feed them, `target` or `y` is the "
        "target (integers: cross-entropy, floats: MSE), others are ignored with a warning.",
    )
    loss: Literal["random_cotangent", "cross_entropy", "mse"] = Field(
        default="random_cotangent",
        description="What is differentiated: the outputs against N(0, 1) cotangents, or a loss. A "
        "caller who did not set it gets the target's loss where the data hold one.",
    )
    samples: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Inputs to sample; else the profile's number."
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=1 << 63,
        description="Of inputs, cotangents and, for a spec, weights.",
    )
    norm_mode: Literal["auto", "train", "eval"] = Field(
        default="auto",
        description="BatchNormalization by the batch's statistics (train), by the running ones "
        "(eval), or by the batch's where the running ones are untrained (auto).",
    )
    target_dtypes: Annotated[
        tuple[Dtype, ...], BeforeValidator(_as_set, json_schema_input_type=list[Dtype])
    ] = Field(
        default=(),
        description="Number formats the network is to be trained in, besides float32, whose range "
        "its gradients are held against.",
    )
    optimizer: Literal["adam", "sgd"] | None = Field(
        default=None,
        description="The optimizer of the training: `lr` belongs to it, and the gate goes by its "
        "probability of failing (else by SGD's), which is told for both.",
    )
    lr: float | None = Field(
        default=None, gt=0, description="The optimizer's learning rate; needs `optimizer`."
    )
    base_rate: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the caller's networks that fail to train, where it is known; else "
        "that of the networks the calibration was fitted on.",
    )
    reinitialize: bool = Field(
        default=False,
        description="Draw the weights anew from their initial laws instead of reading them.",
    )
    remediate: bool = Field(
        default=True, description="Try remedies on a copy and measure their effect."
    )
    min_coverage: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Share of the parameters below which the verdict is inconclusive.",
    )
    time_limit_s: float | None = Field(
        default=None, gt=0, description="Wall-clock seconds for the whole analysis."
    )

    @model_validator(mode="after")
    def _rate_of_an_optimizer(self) -> Self:
        if self.lr is not None and self.optimizer is None:
            raise refused("a learning rate needs `optimizer`", field="lr", hint="adam or sgd")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _say_it_plainly(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            said = fault(error)
            raise InvalidOptions(
                said.code, said.message, where=said.path or None, hint=said.hint
            ) from error

    def digest(self, *, data_sha256: str | None = None) -> str:
        """sha256 of the canonical JSON of all options; `data` counts by its content, not its name.

        `data_sha256` is told where the file is not here.

        Raises:
            InvalidOptions: the data file cannot be read.
        """
        values = self.model_dump(mode="json")
        if self.data is not None:
            values["data"] = data_sha256 or _content_hash(self.data)
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _content_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidOptions(
            "invalid_data",
            f"{path.name} cannot be read: {error.strerror}",
            where="data",
            hint="give the path of an .npz file",
        ) from error
