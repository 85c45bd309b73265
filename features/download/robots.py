"""What the robots.txt of a host lets be fetched (RFC 9309), for whoever wants to go by it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from urllib.robotparser import RobotFileParser

MAX_BYTES = 500 * 1024
"""Of a robots.txt that are read (RFC 9309, section 2.5)."""

_KEPT = 1000  # origins whose rules are in memory


class Robots:
    """The rules of hosts, each read once as long as it is remembered.

    Parameters
    ----------
    read : callable
        Given the address of a robots.txt: its text, "" where there is none. What it raises is raised by `allows`.
    """

    def __init__(self, read: Callable[[str], Awaitable[str]], agent: str) -> None:
        self._read, self._agent = read, agent
        self._rules: OrderedDict[str, asyncio.Future[RobotFileParser]] = OrderedDict()

    async def allows(self, origin: str, url: str) -> bool:
        """Whether an address of an origin ("https://example.org") may be fetched."""
        rules = self._rules.get(origin)
        if rules is None:
            rules = self._rules[origin] = asyncio.get_running_loop().create_future()
            if len(self._rules) > _KEPT:
                self._rules.popitem(last=False)
            try:
                parser = RobotFileParser()
                parser.parse((await self._read(f"{origin}/robots.txt")).splitlines())
            except BaseException as error:
                if self._rules.get(origin) is rules:
                    del self._rules[origin]  # who comes later asks again
                # Who waits for these rules is not cancelled with who reads them: the reader took too long.
                rules.set_exception(TimeoutError() if isinstance(error, asyncio.CancelledError) else error)
                rules.exception()  # it is no fault that nobody may wait
                raise
            rules.set_result(parser)
        return (await asyncio.shield(rules)).can_fetch(self._agent, url)
