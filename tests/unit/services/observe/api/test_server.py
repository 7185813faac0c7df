"""Where the API listens."""

from __future__ import annotations

import pytest

from rayzero.services.observe.api.server import _listen
from rayzero.services.schema.config.observe import ApiSettings
from rayzero.services.schema.errors import RecipeError
from tests.system import LOOPBACKS


@pytest.mark.parametrize("host", LOOPBACKS)
def test_a_port_that_is_taken_is_named_as_a_url_would(host: str) -> None:
    with _listen(ApiSettings(host=host)) as listener:
        port = listener.getsockname()[1]
        shown = host if ":" not in host else rf"\[{host}\]"
        with pytest.raises(RecipeError, match=rf"observe\.api: {shown}:{port} cannot be listened on \(Address already"):
            _listen(ApiSettings(host=host, port=port))


def test_a_host_that_has_no_address_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"observe\.api: no\.such\.host\.invalid:0 cannot be listened on"):
        _listen(ApiSettings(host="no.such.host.invalid"))
