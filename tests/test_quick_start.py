"""Gradio comes in quickly, and whole."""

import subprocess
import sys

SCRIPT = """
import ast, inspect
parsed, parse = [], ast.parse
ast.parse = lambda source, *rest, **more: parsed.append(source) or parse(source, *rest, **more)
import gradio_app.app  # whatever imports Gradio before quick_start does would make it useless
import gradio
assert not any("class HTML" in str(source) for source in parsed), "Gradio parses its own sources"
assert inspect.getfile(gradio.HTML).endswith("html.py")
with gradio.Blocks() as page:
    gradio.Button().click(None, None, None)
assert len(page.get_config_file()["dependencies"]) == 1
"""


def test_the_command_imports_gradio_without_its_sources_being_parsed():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
