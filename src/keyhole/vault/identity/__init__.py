"""Who somebody is, beyond one token: entities, the names under which they log in, and the groups that they are in."""
