# What a person needs is `make` (this list), `make demo` and `make test`.

PYTHON ?= python3
PORT ?= 5672
NODE ?=
CONFIG ?=  # a file of settings (rabbitmq.conf) for a broker that is started
ARGS ?=
WITH ?=  # versions of dependencies, in a VENV of their own: WITH='msgpack==1.0.2'
VENV ?= .venv
BIN = $(VENV)/bin
RABBIT = $(PYTHON) .ci/rabbit.py

.PHONY: help rabbit cluster stop ctl demo test lint bench dist clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

rabbit:  ## a RabbitMQ on PORT=5672: one that runs, or one started (as NODE=) or installed
	@$(RABBIT) start $(PORT) "$(NODE)" "$(CONFIG)"

cluster:  ## three joined nodes on this machine, on PORT, PORT+1 and PORT+2
	@$(RABBIT) cluster $(PORT) "$(or $(NODE),cluster)"

stop:  ## stop what `make rabbit` or `make cluster` started (only NODE=, if given)
	@$(RABBIT) stop "$(NODE)"

ctl:  ## rabbitmqctl of a node that was started here: make ctl NODE=... ARGS='list_queues'
	@$(RABBIT) ctl "$(or $(NODE),aioqueue-$(PORT))" $(ARGS)

demo: $(VENV)/.installed rabbit  ## the first example of the README: a worker and a caller
	@$(BIN)/python .ci/demo.py

test: $(VENV)/.installed rabbit  ## the tests, of one part with ARGS='-k name'
	@$(BIN)/python -m pytest -p no:cacheprovider test_aioqueue.py $(ARGS)

lint: $(VENV)/.lint  ## ruff and mypy
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy --strict --cache-dir=/dev/null aioqueue.py

bench: .bench/.installed rabbit  ## compare with other libraries: ARGS='--rounds 5'
	@.bench/bin/python .ci/bench.py $(ARGS)

dist: $(VENV)/.lint  ## build the package, and check it
	rm -rf dist build
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

clean: stop  ## stop the brokers, remove all that is made here
	rm -rf .venv* .bench .debian build dist *.egg-info __pycache__ .*_cache .hypothesis

# Debian's python3 comes without venv: then it is installed like RabbitMQ is.
%/bin/pip:
	@$(PYTHON) -m venv $* > /dev/null || { $(PYTHON) .ci/rabbit.py apt python3-venv \
	    && $(PYTHON) -m venv $*; }

$(VENV)/.installed: setup.py | $(BIN)/pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' $(WITH)
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lint]'
	@touch $@

# Those that aioqueue is compared to need their own.
.bench/.installed: setup.py | .bench/bin/pip
	@.bench/bin/python -m pip install --quiet --disable-pip-version-check --editable . \
	    aio-pika celery taskiq taskiq-aio-pika uvloop
	@touch $@
