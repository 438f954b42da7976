"""The URL of InvokeModel, and the headers that authorize a call."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from app.contract.models import Model
from app.providers.cached import Cached

if TYPE_CHECKING:
    from app.providers.bedrock.aws import Aws


class Signer:
    """Finds the URL of a model and signs requests to it.

    `endpoint_url` replaces the address of every region. `keys` are an access key's id and its secret; without
    them, botocore looks for a Bedrock API key (AWS_BEARER_TOKEN_BEDROCK), then for credentials in its usual
    places.
    """

    def __init__(self, endpoint_url: str | None, keys: tuple[str, str] | None) -> None:
        self._endpoint_url = endpoint_url.rstrip("/") if endpoint_url else None
        self._aws = Cached(partial(_import_aws, keys))

    async def endpoint(self, region: str) -> str:
        """Returns the address of Bedrock in a region."""
        return self._endpoint_url or (await self._aws()).endpoint(region)

    async def sign(self, model: Model, headers: Mapping[str, str], digest: str) -> tuple[str, dict[str, str]]:
        """Returns the URL of InvokeModel, and the headers with those that authorize the call.

        `digest` is the hexadecimal SHA-256 of the body. All headers are signed. Raises BotoCoreError if there
        are no keys, and any other exception if they cannot be looked up or renewed.
        """
        aws = await self._aws()
        keys = await aws.keys()
        url = f"{await self.endpoint(model.location)}/model/{quote(model.id, safe='')}/invoke"
        return url, aws.sign(url, {**headers, "X-Amz-Content-SHA256": digest}, keys, model.location)


def _import_aws(keys: tuple[str, str] | None) -> "Aws":
    """Slow, and takes 12 MB that a gateway without Bedrock need not spend."""
    from app.providers.bedrock.aws import Aws

    return Aws(keys)
