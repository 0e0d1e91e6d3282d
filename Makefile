# `make demo` and `make test` need Python 3.11 to 3.13, make and git, and do the rest: .venv, packages, run.
# PYTHON=/path/to/python3 chooses the interpreter of a new .venv.

.PHONY: demo test check clean

demo: .venv/.installed
	.venv/bin/theval demo

test check: .venv/.installed-dev
	scripts/check

# The stamps make the second call quick; a changed pyproject.toml installs again.
.venv/.installed: pyproject.toml
	PYTHON="$(PYTHON)" scripts/install '.[demo]'
	touch $@

.venv/.installed-dev: pyproject.toml
	PYTHON="$(PYTHON)" scripts/install '.[demo,dev]'
	touch .venv/.installed $@

clean:
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
