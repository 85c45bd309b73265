# Two commands are all that most people type: `make app` and `make pytest`.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
DEMO := collections/demo/manifest.json
ARGS ?=

.DEFAULT_GOAL := help
DOCS := .venv-docs

.PHONY: app pytest quick index bench results notebooks docs lint format typecheck clean help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  ARGS="..." is handed on, e.g. make app ARGS="--port 8000", make index ARGS="--data ~/Pictures"'

app: $(STAMP) ## open the search page (builds the demo collection first if there is no collection)
	@ls collections/*/manifest.json >/dev/null 2>&1 || $(MAKE) $(DEMO)
	$(RUN) -m gradio_app.app $(ARGS)

pytest: $(DEV) ## run the tests
	$(RUN) -m pytest $(ARGS)

quick: $(DEV) ## run the tests that need no browser, no real data and little time
	$(RUN) -m pytest -m "not browser and not realdata and not slow" -n logical --maxprocesses 4 --dist loadfile $(ARGS)

index: $(STAMP) ## make a collection: ARGS="--data caltech|voc|demo|PATH"
	$(RUN) -m gradio_app.create_index $(ARGS)

bench: $(BENCH) ## measure the index against its peers
	$(RUN) -m ivfpq.benchmark $(ARGS)

results: $(BENCH) ## measure all that the documents say and write it into them
	$(RUN) -m benchmarks.results $(ARGS)

notebooks: $(DEMO) $(DEV) ## run the notebooks
	$(RUN) -m pytest --nbmake notebooks $(ARGS)

docs: $(DOCS)/.installed ## build the site into build/docs: what is linked to must be there
	$(DOCS)/bin/python docs/site/source.py
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

lint: $(DEV) ## check style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(DEV) ## rewrite the sources in the house style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

typecheck: $(DEV) ## check types
	$(RUN) -m mypy

clean: ## remove what the tools made (never datasets or collections)
	rm -rf $(VENV) $(DOCS) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find ivfpq features search gradio_app benchmarks notebooks tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO): | $(STAMP)
	$(RUN) -m gradio_app.create_index --data demo

# The stamp is written last, so an interrupted installation starts over and a finished one is not looked at again. By the
# .pth file this Python finds the rooms of the checkout from any folder, as after an editable installation.
$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; '$(PYTHON)' is older or missing. Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@echo '$(CURDIR)' >"$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth"
	@touch $@

$(DEV): requirements-dev.txt $(STAMP)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(BENCH): requirements-bench.txt $(STAMP)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Of its own: neither the application nor its tests pay for what builds the site.
$(DOCS)/.installed: requirements-docs.txt
	@$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
