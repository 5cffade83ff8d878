"""What every layer speaks: types, protocols, errors, random streams, registries, files."""
