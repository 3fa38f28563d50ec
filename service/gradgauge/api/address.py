"""Where the service listens: the supervisor opens the socket, the API process serves on it.

Apart from the server, so that the supervisor does not load the API.
"""

import socket

from gradgauge.errors import InvalidInput
from gradgauge.settings import Settings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def check_address(settings: Settings) -> None:
    """Refuse to serve others than this machine's users.

    Raises:
        InvalidInput: the address is not a loopback address.
    """
    if not settings.require_keys and settings.host not in LOOPBACK:
        raise InvalidInput(
            "not_loopback",
            f"no API keys are asked for, so {settings.host} would be open to everyone",
            where="GRADGAUGE_HOST",
            hint="make keys with `gradgauge keys create` and set GRADGAUGE_REQUIRE_KEYS=true",
        )


def listen(settings: Settings) -> socket.socket:
    """A listening socket at the settings' address.

    Raises:
        InvalidInput: the address is taken, or not a loopback address.
    """
    check_address(settings)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise InvalidInput(
            "address_taken",
            f"cannot listen at {settings.host}:{settings.port}: {error.strerror}",
            hint="stop what listens there, or choose another port with --port",
        ) from error
    return listening
