"""Videos: read foreign files, write and read the store, and turn their motion into cells."""
