"""Who is measured: Marquee, and each peer with its environment, its wire and Marquee's goal against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.peers.questions import Form, json_form, rpc_form
from benchmarks.peers.served import rpc

_ENCODE = "/marquee.v1.UserEncoderService/Encode"


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """Is one that serves; `goal` says how many times its calls a second Marquee is to answer.

    `environment` names its requirements, "" being this environment; `together` lists whether it can put calls together.
    """

    name: str
    module: str
    goal: float = 1.0
    environment: str = ""
    grpc: bool = False
    listed: bool = False
    together: tuple[bool, ...] = (False,)
    variables: Mapping[str, str] = field(default_factory=dict)

    def form(self, *, whole: bool) -> Form:
        """Says how it is asked."""
        if self.grpc:
            return rpc_form(_ENCODE if whole else rpc.RUN, whole=whole)
        return json_form(whole=whole, listed=self.listed)


_SERVED = "benchmarks.peers.served"

OURS = Contender("Marquee", f"{_SERVED}.ours", grpc=True)
PEERS = (
    Contender("FastAPI", f"{_SERVED}.with_fastapi", environment="fastapi"),
    Contender("LitServe", f"{_SERVED}.with_litserve", 3.0, "litserve", together=(False, True)),
    Contender(
        "BentoML",
        f"{_SERVED}.with_bentoml",
        3.0,
        "bentoml",
        listed=True,
        together=(False, True),
        variables={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Contender(
        "Ray Serve",
        f"{_SERVED}.with_ray",
        8.0,
        "ray",
        grpc=True,
        together=(False, True),
        variables={
            # Stands for all settings that its documentation names for throughput.
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            # All of it listens on loopback only, and tokens would cost each call something.
            "RAY_AUTH_MODE": "disabled",
        },
    ),
)
