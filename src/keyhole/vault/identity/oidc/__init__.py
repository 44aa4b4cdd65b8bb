"""Identity tokens: what the vault says of an entity, signed, for services that do not ask the vault."""
