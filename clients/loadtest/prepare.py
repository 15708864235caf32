"""Gets ready: asks the services what they have, draws people, and writes every request beforehand."""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

from clients.loadtest import people, scenarios
from clients.loadtest.calls import Expected, read_encoded
from clients.loadtest.people import People
from clients.loadtest.report import Target
from clients.loadtest.target import ENCODE, SEARCH, Link, Loaded, loaded, popular_movies
from clients.loadtest.worker import Load
from marquee.client.channels import Settings
from marquee.client.rpcs import Service
from marquee.errors import ConfigError


class Prepared(NamedTuple):
    """Is what a test begins with."""

    load: Load
    target: Target
    people: str


async def prepare(options: argparse.Namespace, settings: Settings) -> Prepared:
    """Asks and writes what a test needs; raises MarqueeError with the cure where a service is not as it must be."""
    called = scenarios.methods_of(options.scenario)
    # Searches are made of what an Encode says, and people who are not known by id of what is popular.
    asked = {*called, *((ENCODE,) if SEARCH in called else ()), *((SEARCH,) if not options.data else ())}
    async with Link(settings, sorted(asked)) as link:
        answering = await _ask(link, settings, asked)
        who = await _people(link, options, settings)
        pools = await _pools(link, options, settings, who, answering)
    expected = Expected(answering.dimension, min(options.k, answering.movies), not options.no_details)
    load = Load(settings, options.scenario, pools, expected, options.arrivals, options.seed)
    addresses = {str(service): settings.addresses[service] for service in link.services}
    return Prepared(load, Target(addresses, *answering), who.source)


async def _ask(link: Link, settings: Settings, asked: set[str]) -> Loaded:
    found = {service: await loaded(link, service, settings.deadline_s) for service in link.services}
    spaces = {one.space for one in found.values()}
    if len(spaces) > 1:
        raise ConfigError(
            "the encoder and the retriever answer in different spaces: let both read one registry, or wait until both "
            "have loaded what is active"
        )
    # The retriever's knows how many movies can be found.
    return found.get(Service.RETRIEVER) or found[Service.USER_ENCODER]


async def _people(link: Link, options: argparse.Namespace, settings: Settings) -> People:
    if options.data:
        return people.from_folder(options.data, options.seed)
    popular = await popular_movies(link, settings.deadline_s)
    if options.users:
        return people.from_ids(options.users, popular, options.seed)
    return people.made_up(popular, options.seed)


async def _pools(
    link: Link, options: argparse.Namespace, settings: Settings, who: People, answering: Loaded
) -> scenarios.Pools:
    encodes = scenarios.encode_requests(who, time.time_ns() // 1_000_000)
    rest = scenarios.search_rest(options.k, not options.no_details)
    searches = []
    if "search" in options.scenario:
        expected = Expected(answering.dimension, options.k, not options.no_details)
        answers = await link.ask_all(ENCODE, encodes, settings.deadline_s)
        searches = [scenarios.search_request(read_encoded(answer, expected), rest) for answer in answers]
    return scenarios.Pools(encodes, searches, scenarios.record_requests(who), rest)
