"""What the gateway uses of botocore: addresses, keys, and signatures (SigV4 or a Bedrock API key).

Imported on first use, by `sign.py`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from botocore.auth import BearerAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import NoCredentialsError
from botocore.session import get_session
from botocore.tokens import FrozenAuthToken, ScopedEnvTokenProvider

from app.providers.cached import Cached

_RENEW_SECONDS = 600
"""Keys that expire within this time are renewed. botocore does the same."""


class Keys(NamedTuple):
    """What requests are signed with. `source` knows when they expire."""

    frozen: ReadOnlyCredentials | FrozenAuthToken
    source: Credentials | None = None


class Aws:
    """`explicit`: an access key's id and its secret. Without them, keys are looked up on first use of `keys`,
    and renewed when they expire soon.
    """

    def __init__(self, explicit: tuple[str, str] | None) -> None:
        self._explicit = explicit
        self._session = get_session()
        loader = self._session.get_component("data_loader")
        self._endpoints = EndpointProvider(
            loader.load_service_model("bedrock-runtime", "endpoint-rule-set-1"),
            loader.load_data("partitions"),
        )
        self._fips = self._session.get_config_variable("use_fips_endpoint")
        self._dualstack = self._session.get_config_variable("use_dualstack_endpoint")
        self.keys = Cached(self._find_keys, _last)

    def endpoint(self, region: str) -> str:
        found = self._endpoints.resolve_endpoint(
            Region=region, UseFIPS=bool(self._fips), UseDualStack=bool(self._dualstack)
        )
        return found.url

    def sign(self, url: str, headers: Mapping[str, str], keys: Keys, region: str) -> dict[str, str]:
        """Returns the headers of a POST with its signature. `headers` must include X-Amz-Content-SHA256."""
        request = AWSRequest("POST", url, headers)
        if isinstance(keys.frozen, FrozenAuthToken):
            BearerAuth(keys.frozen).add_auth(request)  # type: ignore[arg-type]  # the stubs are wrong
        else:
            SigV4Auth(keys.frozen, "bedrock", region).add_auth(request)
        return dict(request.headers.items())

    def _find_keys(self) -> Keys:
        """Slow: it can make network requests. Raises NoCredentialsError, and whatever botocore raises."""
        if self._explicit:
            return Keys(ReadOnlyCredentials(*self._explicit, None))
        if token := ScopedEnvTokenProvider(self._session).load_token(signing_name="bedrock"):
            return Keys(token)
        found = self._session.get_credentials()
        if not found:
            raise NoCredentialsError
        return Keys(found.get_frozen_credentials(), found)


def _last(keys: Keys) -> bool:
    source = keys.source
    return not isinstance(source, RefreshableCredentials) or not source.refresh_needed(_RENEW_SECONDS)
