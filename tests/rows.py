"""Rows that tests begin with."""

from gradgauge.store.ids import DEFAULT_PROJECT, new_id
from gradgauge.store.repository import architectures, models
from gradgauge.store.repository.analyses import NewAnalysis
from gradgauge.store.repository.models import NewModel
from gradgauge.store.tables import Project


async def new_project(session, name="other"):
    row = Project(id=new_id("prj"), name=name)
    session.add(row)
    await session.flush()
    return row.id


async def new_model(session, project=DEFAULT_PROJECT, sha256="a" * 64, name="net.onnx"):
    model_id = new_id("mdl")
    new = NewModel(
        id=model_id,
        project_id=project,
        name=name,
        sha256=sha256,
        size_bytes=3,
        blob_key=f"{project}/models/{model_id}",
    )
    return (await models.add(session, new))[0]


async def ready_model(session, project=DEFAULT_PROJECT, sha256="a" * 64):
    model = await new_model(session, project, sha256)
    model.state = "ready"
    await session.flush()
    return model


def analysis_of(model, *, cache_key="k" * 64, **options):
    return NewAnalysis(
        project_id=model.project_id,
        name=model.name,
        options=options,
        cache_key=cache_key,
        model_id=model.id,
    )


async def new_architecture(session, project=DEFAULT_PROJECT, **spec):
    return (await architectures.add(session, project, name="mlp", spec=spec))[0]


__all__ = ["analysis_of", "new_architecture", "new_model", "new_project", "ready_model"]
