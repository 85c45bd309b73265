"""Keys for programs that use the API (docs/REST.md): make, list and revoke them.

python -m gradio_app.api_keys make NAME [--scope read write] | list | revoke ID
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from features.collection.errors import StoreError
from features.command_line import set_up_streams
from features.paths import expanded
from gradio_app.routes.api.keys import SCOPES, KeyStore


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="api_keys", description="Keys for programs that use the API.")
    parser.add_argument(
        "--collections",
        type=expanded,
        default=Path("collections"),
        metavar="FOLDER",
        help="whose keys they are (default: %(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="make a key and print it, this once")
    make.add_argument("name", help="what it is for")
    make.add_argument("--scope", nargs="+", choices=SCOPES, default=["read"], help="what it opens (default: read)")
    commands.add_parser("list", help="list the keys")
    revoke = commands.add_parser("revoke", help="take a key back")
    revoke.add_argument("id", help="the first column of the list")
    args = parser.parse_args(argv)
    set_up_streams(logging.WARNING)
    store = KeyStore(args.collections)
    try:
        if args.command == "make":
            sys.stdout.write(store.make(args.name, tuple(args.scope)) + "\n")
        elif args.command == "revoke":
            sys.stdout.write(f"{store.revoke(args.id).name} opens nothing any more\n")
        else:
            for key in store.listed():
                sys.stdout.write(f"{key.id}  {key.created}  {','.join(key.scopes):10}  {key.name}\n")
    except StoreError as error:
        parser.exit(1, f"api_keys: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
