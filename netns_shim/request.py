# SPDX-License-Identifier: Apache-2.0
"""One call of a runtime as a record, the same for every wire."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .decoding import Json


class Request:
    """What a runtime asks for.

    The wire has checked the names, so `network`, `container_id` and `ifname` are safe as parts of
    file names. A parameter that the verb does not take is the empty string.

    `verb` is the operation as the CNI specification spells it (`ADD`, `DEL`, …); `netns` is the
    path of the container's network namespace; `args` and `path` are CNI_ARGS and CNI_PATH;
    `cni_version` is the version of the configuration and so of the answer; `conf` is the
    configuration as it was sent, with the keys of the runtime, of which those in `runtimeConfig`
    have the spelling of the conventions (`offered.canonical`); `environ` is the environment of the
    call, which the delegated plugins inherit.
    """

    __slots__ = (
        "args",
        "cni_version",
        "conf",
        "container_id",
        "environ",
        "ifname",
        "netns",
        "network",
        "path",
        "verb",
    )

    def __init__(
        self,
        verb: str,
        *,
        network: str,
        cni_version: str,
        conf: Json,
        environ: Mapping[str, str],
        container_id: str = "",
        netns: str = "",
        ifname: str = "",
        args: str = "",
        path: str = "",
    ) -> None:
        self.verb = verb
        self.network = network
        self.cni_version = cni_version
        self.conf = conf
        self.environ = environ
        self.container_id = container_id
        self.netns = netns
        self.ifname = ifname
        self.args = args
        self.path = path
