"""Pictures by a list of their addresses: a folder of files, and what the list says of each.

Read `lists` (what there is to fetch), `state` (what became of it), `hosts` (whose turn it is), `fetch` (one address),
`pictures` (what came is a picture) and `run` (all of it together).
"""
