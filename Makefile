# Everything that a contributor runs.  scripts/venv makes the virtual environment and prints its path.
.PHONY: demo test lint bench campaign man clean
.DEFAULT_GOAL := test

IN_VENV = venv=$$(sh scripts/venv) && PATH="$$venv/bin:$$PATH"
WORKERS ?= 2
PYTEST ?=
BENCH ?=

demo:
	@$(IN_VENV) python -m pgkeep demo

lint:
	@$(IN_VENV) ruff check </dev/null
	@$(IN_VENV) ruff format --check </dev/null
	@$(IN_VENV) mypy </dev/null
	@$(IN_VENV) lint-imports </dev/null

test: lint
	@$(IN_VENV) python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST) </dev/null

campaign:
	@$(IN_VENV) python -m pytest -m "campaign or hypothesis" --hypothesis-profile campaign --timeout 14400 \
		-n $(WORKERS) --dist worksteal $(PYTEST) </dev/null

bench:
	@$(IN_VENV) python -m benchmarks $(BENCH) </dev/null

man:
	@$(IN_VENV) python scripts/man.py docs/man

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .bench
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
