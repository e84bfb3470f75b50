"""What all sections of the configuration have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]


class Section(BaseModel):
    """Nothing unknown is taken, so that a typing error is not a silent no."""

    model_config = ConfigDict(extra="forbid", frozen=True)
