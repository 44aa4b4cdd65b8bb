"""Every route that takes a body refuses what is no JSON, or JSON that could be read in two ways, and goes on."""

from faces import json_bodies

EACH = 6  # bodies that one route gets here; the campaign gives it all of them


def test_every_route_gets_some_bodies_of_the_corpora_and_every_body_meets_some_routes():
    corpus = list(json_bodies.bodies(json_bodies.suite()).items())
    seen = json_bodies.run(lambda routes, number: json_bodies.spread(corpus, routes, number, EACH))
    assert seen.wrong == []
    assert seen.routes == seen.known
    assert len(seen.known) > 250
    assert seen.bodies >= {name for name, body in corpus if not json_bodies.counts(body)}


def test_every_field_of_every_route_gets_a_value_that_readers_stumble_over():
    seen = json_bodies.run(lambda routes, number: json_bodies.of_fields(list(routes.values())[number], number))
    assert seen.wrong == []
