"""The short form of the campaign; the long one is run by hand."""

from campaigns import age_round_trips


def test_what_one_program_of_age_seals_the_others_open():
    rounds = 2 * len(age_round_trips.EDGES)
    assert age_round_trips.campaign(rounds, seed=3) == {"pyrage": rounds, "age-encryption": rounds, "age": 1}
