"""HTTP over the services of `pipeline`: parsing, guarding, presenting, and nothing that decides."""
