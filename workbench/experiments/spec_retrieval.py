"""Retrieval of a variant in an experiment file: an index by name, and how it is asked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from workbench.errors import NotFoundError
from workbench.pipeline.retrieval import Retrieval
from workbench.retrieval.search_settings import SearchSettings
from workbench.workspace import Layout


class RetrievalSpec(BaseModel):
    """What a variant searches. The pipeline holds the digest of the index that is found now.

    Attributes:
        index: a built index by name (its newest build), digest, or a beginning of the digest.
        query: name of the input that is searched for. access: labels that the readers hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    index: str
    query: str = "question"
    search: SearchSettings = SearchSettings()
    access: tuple[str, ...] = ()

    def find(self, layout: Layout, where: str) -> Retrieval:
        """The retrieval of a pipeline.

        Raises:
            NotFoundError: there is no such index, or several; names `where`.
        """
        from workbench.retrieval.index import find_index

        try:
            digest = find_index(layout, self.index).digest
        except NotFoundError as error:
            hint = f"Build it with: workbench index build {self.index} --corpus CORPUS"
            raise NotFoundError(f"{where}: {error.message}", hint=hint) from None
        return Retrieval(index=digest, query=self.query, search=self.search, access=self.access)
