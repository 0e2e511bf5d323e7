"""The nouns that cross between programs, as versioned msgspec structs.

A struct only ever gains fields, each with a default, until its major version changes: a reader ignores fields it does
not know, so releases N and N-1 understand each other (decision record 0002).
"""
